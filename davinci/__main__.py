"""Commands on a store: ``python -m davinci COMMAND``. Each imports what it needs when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from davinci.command_line import Parser
from davinci.errors import UserError, refused
from davinci.store import Store

EXAMPLES = """\
examples:
  python -m davinci data build embedded           build the pool that carries its own text
  python -m davinci data tokenize web/*.parquet --tokenizer qwen2 --pool mine   your own text as a pool
  python -m davinci status qa_ratio_stage2_2      arms x seeds: waiting, running, done, failed, blocked
  python -m davinci logs qa-30-s0 -f              follow what a run's jobs print
  python -m davinci cancel qa_ratio_stage2_2/QA-30%/0   stop one run; without /ARM/SEED the sweep
  python -m davinci retry qa_ratio_stage2_2       launch what is left
  python -m davinci where qa-30-s0-1f2e3d4c       paths of a run's records, checkpoints and logs
  python -m davinci evaluate qa-30-s0-1f2e3d4c --checkpoint all   every checkpoint that is there, on the run's suite
  python -m davinci export qa-30-s0-1f2e3d4c --to hf DIR   its last checkpoint for transformers and vLLM
  python -m davinci import models/SmolLM2-135M --as smollm2   another's weights, to train on from: model=smollm2
  python -m davinci gc                            checkpoints that no launched sweep needs
  python -m davinci sync qa_ratio_stage2_2        send finished runs to W&B
  python -m davinci dashboard qa_ratio_stage2_2   a W&B workspace of its scores, losses and factors

exit status: 0 success, 1 runs failed, 2 a mistake (one line says which), 130 stopped by Ctrl-C
"""
EVALUATE_EXAMPLES = """\
examples:
  python -m davinci evaluate qa-30-s0-1f2e3d4c                                 the run's last checkpoint, its own suite
  python -m davinci evaluate qa-30-s0-1f2e3d4c --checkpoint 341k,390k          two of them
  python -m davinci evaluate qa_ratio_stage2_2 --checkpoint all --suite NAME  all of a sweep, on another suite
  python -m davinci evaluate qa_ratio_stage2_2 --suite mine.yaml --cluster slurm                 as Slurm jobs
  python -m davinci evaluate hf:models/SmolLM2-135M --limit 100                another's model, for a baseline column
"""
RUN = "a run: its id or the beginning of it, SWEEP/ID, or SWEEP/ARM/SEED"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    store = Store(Path(options.store).absolute())
    try:
        return int(importlib.import_module(f"davinci.commands.{options.command}").run(options, store))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `… | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that only others may write, a full disk
        print(f"error: {refused(error)}", file=sys.stderr)
        return 2


class _Commands:
    """Adds commands to a parser, each with the options that all have."""

    def __init__(self, parsers: argparse._SubParsersAction[Parser]) -> None:
        self._parsers = parsers

    def add(
        self, name: str, short: str, about: str = "", statuses: str = "", module: str = "", examples: str = ""
    ) -> argparse.ArgumentParser:
        """A command that `module` runs; `statuses` are its exit statuses beside 0, 2 and 130."""
        ending = f"exit status: 0 success, {statuses}2 a mistake (one line says which), 130 stopped by Ctrl-C"
        parser = self._parsers.add_parser(
            name,
            help=short,
            description=f"{short[0].upper()}{short[1:]}. {about}".strip(),
            epilog=f"{examples}\n{ending}" if examples else ending,
            formatter_class=argparse.RawDescriptionHelpFormatter if examples else argparse.HelpFormatter,
        )
        parser.add_argument(
            "--store", default="store", metavar="PATH", help="where everything is kept (default: ./store)"
        )
        parser.set_defaults(command=module or name)
        return parser


def _parser() -> Parser:
    parser = Parser(
        prog="python -m davinci",
        description="Commands on a store. To launch a sweep: python launch.py -m sweep=NAME",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    commands = _Commands(parsers)

    status = commands.add(
        "status",
        "how a sweep's runs stand",
        "Waiting, running (how far, and when it should be done), done, failed (why), blocked (by what) or cancelled.",
        "1 a run failed, is blocked or cancelled, ",
    )
    status.add_argument("sweep", metavar="SWEEP")
    status.add_argument("-w", "--watch", action="store_true", help="refresh until no run is running or waiting")
    status.add_argument("--json", action="store_true", help="one JSON object; with --watch one a line")

    logs = commands.add(
        "logs",
        "what a run's jobs printed",
        "The logs of all stretches of training it passes through, shared ones too, from first to last.",
        "1 with -f: the run failed, is blocked or cancelled, ",
    )
    logs.add_argument("run", metavar="RUN", help=RUN)
    logs.add_argument("-f", "--follow", action="store_true", help="print what is added until the run is over")
    logs.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N lines of each log")
    logs.add_argument("--json", action="store_true", help="one JSON object; with -f one a line")

    cancel = commands.add(
        "cancel",
        "stop what works on a sweep or a run",
        "Jobs checkpoint first, and nothing on disk goes: `retry` goes on from there. Of a run only what no other run "
        "needs is stopped.",
    )
    cancel.add_argument("name", metavar="SWEEP|RUN", help=f"a sweep, or {RUN}")
    cancel.add_argument("--json", action="store_true", help="what was stopped, as one JSON object")

    retry = commands.add(
        "retry",
        "launch what is left of a sweep or a run",
        "With the plan it was launched with, here or on Slurm as that says; failures and cancellations are forgotten.",
        "1 runs failed, ",
    )
    retry.add_argument("name", metavar="SWEEP|RUN", help=f"a sweep, or {RUN}")
    retry.add_argument(
        "--json", action="store_true", help="the outcome as one JSON object; progress goes to standard error"
    )

    evaluate = commands.add(
        "evaluate",
        "evaluate checkpoints of a run, or another's model",
        "What is evaluated already is only shown.",
        examples=EVALUATE_EXAMPLES,
    )
    evaluate.add_argument(
        "name", metavar="SWEEP|RUN|hf:PATH", help=f"a sweep, or {RUN}; or a folder that transformers saved"
    )
    evaluate.add_argument(
        "--checkpoint",
        default="last",
        metavar="all|last|TOKENS[,…]",
        help="which of those on the disk, by tokens since initialisation (default: last)",
    )
    evaluate.add_argument(
        "--weights",
        choices=["trained", "average"],
        help="those trained, or the average that a stage keeps of them (default: trained)",
    )
    evaluate.add_argument(
        "--suite",
        metavar="NAME|FILE.yaml",
        help="a file of conf/evaluation, or one of the same form (default: the run's own; of hf:PATH embedded)",
    )
    evaluate.add_argument(
        "--set",
        dest="override",
        action="append",
        default=[],
        metavar="evaluation.KEY=VALUE",
        help="with --suite NAME: one of its keys, as Hydra reads it; may be given several times",
    )
    evaluate.add_argument("--cluster", choices=["local", "slurm"], help="where (default: local)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first N items of each task")
    evaluate.add_argument("--keep-text", action="store_true", help="records hold what the model wrote")
    evaluate.add_argument("--pool", default="embedded", help="of hf:PATH: whose benchmark items (default: embedded)")
    evaluate.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of hf:PATH: what it computes in (default: float32)",
    )
    evaluate.add_argument("--json", action="store_true", help="one JSON object")

    export = commands.add(
        "export",
        "a checkpoint as a folder that transformers and vLLM load",
        "With its tokenizer, in the layout of the class that computes the same; where there is none, that is an error.",
        examples="example:\n  python -m davinci export qa-30-s0-1f2e3d4c --to hf exported/qa-30",
    )
    export.add_argument(
        "run", metavar="RUN|imported:NAME", help=f"{RUN}; or a model that was imported, which comes out as it went in"
    )
    export.add_argument("--to", choices=["hf"], default="hf", help="the format (default: hf)")
    export.add_argument("folder", metavar="DIR", help="a folder that is new or empty")
    export.add_argument(
        "--checkpoint", default="last", metavar="last|TOKENS", help="which of those on the disk (default: last)"
    )
    export.add_argument("--weights", choices=["trained", "average"], default="trained", help="(default: trained)")
    export.add_argument("--json", action="store_true", help="one JSON object")

    taken = commands.add(
        "import",
        "a folder that transformers saved, as weights that a curriculum begins with",
        "Copies it into the store, and writes its shape as conf/model/NAME.yaml: model=NAME trains on from it.",
        examples="example:\n  python -m davinci import models/SmolLM2-135M --as smollm2",
        module="import_model",
    )
    taken.add_argument("folder", metavar="DIR", help="with config.json and safetensors")
    taken.add_argument("--as", dest="name", metavar="NAME", help="what it is called here (default: the folder's name)")
    taken.add_argument("--config-dir", metavar="DIR", help="write DIR/model/NAME.yaml instead of conf/")
    taken.add_argument("--json", action="store_true", help="one JSON object")

    where = commands.add("where", "paths of a run, or of a sweep's plan, report and runs")
    where.add_argument("name", metavar="SWEEP|RUN", help=f"a sweep, or {RUN}")
    where.add_argument("--json", action="store_true", help="one JSON object")

    realised = commands.add(
        "realised",
        "what a run's adaptive stages came to, as a fixed curriculum",
        "Trained as such it gives the same weights.",
    )
    realised.add_argument("run", metavar="RUN", help=RUN)
    realised.add_argument("-o", "--output", metavar="FILE", help="write it there, such as conf/curriculum/NAME.yaml")
    realised.add_argument("--json", action="store_true", help="one JSON object")

    gc = commands.add(
        "gc",
        "remove checkpoints that no launched sweep needs",
        "Lists them and asks first; where nobody can be asked, nothing is removed without --yes.",
    )
    gc.add_argument("--yes", action="store_true", help="remove them without asking")
    gc.add_argument("--json", action="store_true", help="the list as one JSON object; removes only with --yes")

    data = parsers.add_parser("data", help="pools of text").add_subparsers(required=True, metavar="ACTION")
    build = _Commands(data).add("build", "build a pool: text, tokenizer, shards, benchmark items", module="data_build")
    build.add_argument("pool", metavar="POOL", help="a file of conf/pool, or the path of one")
    build.add_argument(
        "--depth",
        action="append",
        default=[],
        choices=[f"l{level}" for level in range(10)],
        metavar="l0..l9",
        help="only the sources at that Darwin Level; may be given several times",
    )
    build.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only that source; may be given several times"
    )
    build.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    build.add_argument("--strict", action="store_true", help="stop at the first thing that cannot be read")
    build.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="look for pool/POOL.yaml there too"
    )
    card = _Commands(data).add(
        "card",
        "the data card of a built pool's sources: sizes, licence, and what every step of a chain dropped, and why",
        module="data_card",
    )
    card.add_argument("pool", metavar="POOL")
    card.add_argument("--source", action="append", default=[], metavar="NAME", help="only that source")
    card.add_argument("--json", action="store_true", help="one JSON object (docs/data_card.schema.json)")
    items = _Commands(data).add(
        "items",
        "write the items of an evaluation suite, for the operation `decontaminated`",
        "One JSON object a line (benchmark, id, text), into the store's items/SUITE.jsonl.",
        module="data_items",
    )
    contamination = _Commands(data).add(
        "contamination",
        "which items of an evaluation suite stand in a pool's training text, and in which documents",
        "An item stands in a document where N words in a row of it do (GPT-3, arXiv 2005.14165, appendix C).",
        module="data_contamination",
    )
    contamination.add_argument("pool", metavar="POOL")
    suite = "a file of conf/evaluation, or one of the same form"
    items.add_argument("suite", metavar="SUITE", help=suite)
    contamination.add_argument(
        "--suite", required=True, metavar="SUITE", help=f"{suite}; or a JSONL file of items, or a folder of them"
    )
    for one in (items, contamination):
        one.add_argument(
            "--set",
            dest="override",
            action="append",
            default=[],
            metavar="evaluation.KEY=VALUE",
            help="one of the suite's keys, such as evaluation.data=FOLDER; may be given several times",
        )
        one.add_argument("--json", action="store_true", help="one JSON object")
    items.add_argument("--pool", default="embedded", help="whose items the embedded suite has (default: embedded)")
    contamination.add_argument("-n", type=int, default=13, metavar="N", help="words in a row (default: 13)")
    contamination.add_argument(
        "--share", type=float, default=0.0, metavar="0..1", help="of an item's rows that a document must hold"
    )
    contamination.add_argument("--source", action="append", default=[], metavar="NAME", help="only that source")
    contamination.add_argument("--depth", metavar="l0..l9", help="only that level (default: every one)")
    grade = _Commands(data).add(
        "grade",
        "let a language model grade a sample of a source, as labels for train-classifier",
        "By the rubric of a prompt of conf/prompts. What was graded once is not asked again.",
        module="data_grade",
    )
    grade.add_argument("source", metavar="POOL/SOURCE")
    grade.add_argument("--endpoint", required=True, metavar="URL", help="an OpenAI-compatible server, such as …/v1")
    grade.add_argument("--model", required=True, metavar="NAME", help="as the server knows it")
    grade.add_argument("--depth", default="l2", choices=[f"l{level}" for level in range(10)], metavar="l0..l9")
    grade.add_argument("--prompt", default="educational_value", metavar="NAME", help="default: educational_value")
    grade.add_argument("--sample", type=int, default=1000, metavar="N", help="documents (default: 1000)")
    grade.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: 8)")
    grade.add_argument("-o", "--output", required=True, metavar="FILE.jsonl")
    grade.add_argument("--json", action="store_true", help="what was counted as one JSON object")
    learn = _Commands(data).add(
        "train-classifier",
        "train a classifier of documents on labels, for the operation `classifier`",
        "LABELS.jsonl has rows of text and label, with id where several are one document. They are split in three: "
        "to train, to calibrate, and to report precision, recall, AUC and calibration error on.",
        module="data_train_classifier",
    )
    learn.add_argument("labels", metavar="LABELS.jsonl")
    learn.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the classifier goes")
    learn.add_argument(
        "--at-least", type=float, metavar="X", help="labels are numbers: those from X on are `high`, the others `low`"
    )
    learn.add_argument("--strength", type=float, default=10.0, help="inverse strength of the L2 penalty (default: 10)")
    learn.add_argument("--json", action="store_true", help="the report as one JSON object")

    tokenize = _Commands(data).add(
        "tokenize",
        "documents of Parquet or JSONL files as a source of a pool of your own",
        "Writes conf/pool/POOL.yaml (or adds the source to it), builds it, and says how to train on it.",
        module="data_tokenize",
    )
    tokenize.add_argument("files", nargs="+", metavar="FILES", help="Parquet, or JSON lines (.gz, .zst too)")
    tokenize.add_argument("--pool", required=True, metavar="NAME", help="of the pool")
    tokenize.add_argument(
        "--tokenizer",
        metavar="qwen2|PATH|train:SIZE",
        help="Qwen2's, a tokenizer.json or a Hugging Face tokenizer's folder, or one trained on the pool (a new pool)",
    )
    tokenize.add_argument("--source", metavar="NAME", help="of the source (default: the first file's)")
    tokenize.add_argument("--domain", default="general", help="of the source (default: general)")
    tokenize.add_argument("--text", default="text", metavar="COLUMN", help="that holds the text (default: text)")
    tokenize.add_argument(
        "--depth",
        default="L1",
        choices=[f"L{level}" for level in range(10)],
        metavar="L0..L9",
        help="Darwin Level that the text is at (default: L1)",
    )
    tokenize.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    tokenize.add_argument("--config-dir", metavar="DIR", help="write DIR/pool and DIR/mixture instead of conf/")

    verify = _Commands(data).add(
        "verify",
        "read every file of a pool and compare its checksum",
        statuses="1 a file is missing or changed (named), ",
        module="data_verify",
    )
    verify.add_argument("pool", metavar="POOL")

    sync = commands.add(
        "sync",
        "send finished runs to W&B",
        "Those that were mirrored offline too. Nothing is sent twice: stopped or killed midway, the same command goes "
        "on. It needs an API key: `wandb login`, or WANDB_API_KEY.",
        "1 W&B refused some of them, ",
    )
    sync.add_argument("sweep", metavar="SWEEP")
    how = sync.add_mutually_exclusive_group()
    how.add_argument("--offline", action="store_true", help="only write W&B's offline files, into the store")
    how.add_argument(
        "--watch",
        action="store_true",
        help="mirror as the sweep says, also while runs train, until the sweep is over",
    )
    how.add_argument("--told", action="store_true", help=argparse.SUPPRESS)  # by a launcher, on standard input

    dashboard = commands.add(
        "dashboard",
        "a sweep's W&B workspace",
        "Domain scores over tokens by arm, loss by domain, factors against final scores, the ablation table. Written "
        "to a file of the store, and saved in W&B where the sweep is mirrored online.",
    )
    dashboard.add_argument("sweep", metavar="SWEEP")
    dashboard.add_argument("--save", action="store_true", help="save it in W&B also where the sweep is offline")
    return parser


if __name__ == "__main__":
    sys.exit(main())
