"""The paper's 19 benchmarks: each config against lm-eval's own, and each through lm-eval on a few local rows."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from benchmark_rows import ROWS, write_rows
from tokenizers import Tokenizer

import analysis
from davinci.config import Benchmark, Evaluation, Model, Node, parse
from davinci.errors import UserError
from davinci.evaluation import embedded, harness, hub, local_data, protocols, suite
from davinci.evaluation.adapter import DecoderLM
from davinci.evaluation.item_sets import item_set
from davinci.evaluation.settings import settings_digest
from davinci.model.decoder import Decoder
from davinci.store import Store

CONF = Path(__file__).parents[2] / "conf" / "evaluation" / "paper.yaml"
PUBLISHED = Path(analysis.__file__).parent / "published" / "benchmarks.csv"

COT = "mmlu_flan_cot_fewshot"
DATA: dict[str, Any] = {**yaml.safe_load(CONF.read_text(encoding="utf-8")), "probes": None}
BENCHMARKS = parse(Evaluation, DATA).benchmarks


def asked(*names: str, **changes: Any) -> Evaluation:
    chosen = {name: DATA["benchmarks"][name] for name in names or DATA["benchmarks"]}
    return parse(Evaluation, {**DATA, "benchmarks": chosen, "limit": 2, "run_code": "isolated", **changes})


def test_domains_shots_and_protocols_are_the_papers() -> None:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    published = {row["benchmark"]: (row["domain"], int(row["num_fewshot"]), row["protocol"]) for row in rows}
    ours = {name: (one.domain, one.num_fewshot, one.protocol) for name, one in BENCHMARKS.items()}
    assert ours == published and list(ours) == list(published)


def test_subsets_are_what_they_say() -> None:
    stem = {"biology", "chemistry", "computer_science", "engineering", "math", "physics"}
    assert set(suite.leaves("lm_eval", "davinci_mmlu_pro_stem")) == {f"mmlu_pro_{one}" for one in stem}
    everything, part = suite.leaves("lm_eval", "mmlu"), suite.leaves("lm_eval", "mmlu_stem")
    assert (len(everything), len(part)) == (57, 19)
    assert part == {name: config for name, config in everything.items() if config["tag"] == "mmlu_stem_tasks"}
    assert len(suite.leaves("lm_eval", "mmlu_pro")) == 14
    # What writes its thoughts has the same subjects in the same order, so the same item ids.
    thoughtful = [name.replace("flan_cot_fewshot_", "") for name in sorted(suite.leaves("lm_eval", COT))]
    assert thoughtful == sorted(everything)
    assert len(suite.leaves("lm_eval", "agieval")) == 21
    assert len(suite.leaves("lm_eval", "minerva_math")) == 7


@pytest.mark.parametrize("name", BENCHMARKS)
def test_config_holds_against_lm_evals_registry(name: str) -> None:
    benchmark = BENCHMARKS[name]
    suite.check(asked(name))
    for task, config in suite.leaves("lm_eval", benchmark.task).items():
        if protocols.native(config) != benchmark.protocol:
            assert item_set(config) is not None, task
        scored, *examples = local_data.splits(config, benchmark.num_fewshot)
        assert scored != "None"
        given = (config.get("fewshot_config") or {}).get("samples") is not None
        assert benchmark.num_fewshot == 0 or given or examples or scored in ("test", "train"), task
        metric, _, chain = benchmark.metric.partition(",")
        assert metric in suite.computes(config, benchmark)
        assert not chain or chain in [one["name"] for one in config["filter_list"]]


OURS = ["humaneval", "humaneval_plus", "mbpp", *suite.leaves("lm_eval", "minerva_math"), "minerva_math"]


@pytest.mark.parametrize("name", OURS)
def test_task_files_of_lm_evals_names_differ_in_the_metric_alone(name: str) -> None:
    spec = find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "tasks"
    kind = "benchmarks" if name == "minerva_math" else name.split("_")[0] + ("_math" if "minerva" in name else "")
    theirs = suite.task_config(folder / kind / f"{name}.yaml")
    ours = suite.task_config(suite.task_files("lm_eval")[name])
    changed = {"metric_list", "process_results", "filter_list", "fewshot_config", "aggregate_metric_list", "tag"}
    for key in (theirs.keys() | ours.keys()) - changed:
        mine, other = ours.get(key), theirs.get(key)
        if str(mine).startswith("davinci."):
            mine, other = str(mine).rpartition(".")[2], str(other).rpartition(".")[2]
        assert mine == other, key


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def lm(tiny_model: Model, built_pool: Store) -> DecoderLM:
    torch.set_num_threads(1)
    model = Decoder(tiny_model.model_copy(update={"max_position_embeddings": 768}), 512)
    model.initialise(3)
    lm = DecoderLM(model, Tokenizer.from_file(str(built_pool.pool("embedded") / "tokenizer.json")))
    written = lm.generate_until

    def brief(requests: Any, disable_tqdm: bool = False) -> list[str]:
        for request in requests:  # a random model never stops by itself
            request.arguments = (request.args[0], {**request.args[1], "max_gen_toks": 4})
        return written(requests)

    lm.generate_until = brief  # type: ignore[method-assign]
    return lm


def scored(lm: DecoderLM, evaluation: Evaluation, folder: Path) -> tuple[dict[str, float], pd.DataFrame]:
    settings = json.dumps(evaluation.model_dump(mode="json"))
    return harness.run(lambda: lm, folder, evaluation, Store(folder), settings=settings, fewshot_seed=1)


# One of each family; the others are the same files of lm-eval with other names.
LARGE = ["MMLU", "MMLU-Pro", "EvalPlus", "MMLU-Pro-STEM"]
FAMILIES = [name for name in BENCHMARKS if name not in LARGE]


@pytest.mark.parametrize("names", [FAMILIES, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_every_benchmark_is_read_by_lm_eval_from_local_files(
    names: list[str], lm: DecoderLM, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    evaluation = asked(*names, data=str(rows), limit=1)
    scores, frame = scored(lm, evaluation, tmp_path)
    assert set(scores) == set(names)
    for name, score in scores.items():
        items = frame[frame["benchmark"] == name]
        tasks = suite.leaves("lm_eval", BENCHMARKS[name].task)
        assert len(tasks) == len(items)
        assert score == pytest.approx(items["score"].mean())
        assert items["likelihoods"].notna().all() == (BENCHMARKS[name].protocol == "ppl")
    assert frame["outcome"].notna().sum() == sum(1 for name in names if BENCHMARKS[name].domain == "code")


def test_right_programs_score_and_others_are_counted(lm: DecoderLM, rows: Path, tmp_path: Path) -> None:
    answers = iter(["    return x + 0\n", "    import os\n    os.fork()\n", "def add(x): return x", "while True: pass"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "generate_until", lambda requests, **_: [next(answers) for _ in requests])
        scores, frame = scored(lm, asked("HumanEval", "MBPP", data=str(rows)), tmp_path)
    assert scores == {"HumanEval": 0.5, "MBPP": 0.5}
    assert list(frame["outcome"]) == ["passed", "processes", "passed", "time"]


def test_code_is_not_run_unasked(built_pool: Store, node: Node) -> None:
    evaluation = asked("HumanEval", run_code="refuse")
    suite.check(evaluation)  # a plan may be made
    with pytest.raises(UserError, match=r"evaluation.run_code: task humaneval .* set evaluation.run_code=isolated"):
        settings_digest(node, evaluation, built_pool)


def test_a_missing_file_says_what_to_provide(built_pool: Store, node: Node, rows: Path, tmp_path: Path) -> None:
    folder = write_rows(tmp_path)
    (folder / "gsm8k" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"no .*/gsm8k/train.jsonl .* rows of split train of openai/gsm8k"):
        settings_digest(node, asked("GSM8K", data=str(folder)), built_pool)
    with pytest.raises(UserError, match=r"no .*/nowhere/validation.jsonl .* task piqa"):
        settings_digest(node, asked("PIQA", data={"PIQA": str(tmp_path / "nowhere")}), built_pool)
    assert settings_digest(node, asked("GSM8K", data={"PIQA": "elsewhere"}), built_pool)  # the hub's


def test_a_changed_data_file_is_evaluated_again(built_pool: Store, node: Node, tmp_path: Path) -> None:
    folder = write_rows(tmp_path)
    keys = [settings_digest(node, asked("PIQA", "MMLU-STEM", data=str(folder)), built_pool)]
    for file in ("piqa/validation.jsonl", "mmlu_stem/dev.jsonl"):
        with (folder / file).open("a", encoding="utf-8") as opened:
            opened.write("\n")
        keys.append(settings_digest(node, asked("PIQA", "MMLU-STEM", data=str(folder)), built_pool))
    with (folder / "hellaswag" / "validation.jsonl").open("a", encoding="utf-8") as opened:
        opened.write("\n")
    keys.append(settings_digest(node, asked("PIQA", "MMLU-STEM", data=str(folder)), built_pool))
    assert len(set(keys)) == 3 and keys[-1] == keys[-2]


def test_more_examples_than_there_are(lm: DecoderLM, rows: Path, tmp_path: Path, built_pool: Store, node: Node) -> None:
    """Refused before anything is trained where files tell, else when the benchmark is loaded."""
    for name, there in (("OpenBookQA", 6), ("SuperGPQA", 7), ("GPQA-Main", 7), ("MBPP", 3)):
        changed = {name: {**DATA["benchmarks"][name], "num_fewshot": there + 1}}
        with pytest.raises(UserError, match=f"{name}.num_fewshot: {there + 1} examples are asked for, .* has {there}"):
            scored(lm, asked(name, data=str(rows), benchmarks=changed), tmp_path)
        if name != "MBPP":
            with pytest.raises(
                UserError, match=f"{name}.num_fewshot: {there + 1} examples are asked for, .* has {there}"
            ):
                settings_digest(node, asked(name, data=str(rows), benchmarks=changed), built_pool)
            fitting = {name: {**DATA["benchmarks"][name], "num_fewshot": there}}
            assert settings_digest(node, asked(name, data=str(rows), benchmarks=fitting), built_pool)
    embedded.make_tasks(built_pool, "embedded")
    data = yaml.safe_load((CONF.parent / "embedded.yaml").read_text(encoding="utf-8"))
    data["benchmarks"]["general_cloze"]["num_fewshot"] = embedded.FEWSHOT_ITEMS + 1
    with pytest.raises(UserError, match="general_cloze.num_fewshot: 9 examples are asked for, .* has 8"):
        settings_digest(node, parse(Evaluation, {**data, "probes": None}), built_pool)


SILENT = """
import json, sys
from pathlib import Path
from davinci.config import Evaluation, parse
from davinci.errors import UserError
from davinci.evaluation import harness
from davinci.store import Store

suite, store = parse(Evaluation, json.load(sys.stdin)), Store(Path(sys.argv[1]))
try:
    harness.run(None, Path("."), suite, store, settings="", fewshot_seed=1)
except UserError as error:
    print(error)
"""


def test_a_hub_out_of_reach_says_at_once_what_to_provide(tmp_path: Path) -> None:
    """In a process of its own: the hub's libraries read once whether they may go there."""
    suite = json.dumps(asked("GSM8K", "PIQA").model_dump(mode="json"))
    quiet = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": ""}
    command = [sys.executable, "-c", SILENT, str(tmp_path)]
    done = subprocess.run(command, input=suite, env=quiet, capture_output=True, text=True, check=True)
    assert "Retrying" not in done.stderr and done.stdout.count("\n") == 1
    said = done.stdout.strip()
    assert said.startswith(
        "evaluation.benchmarks.GSM8K: openai/gsm8k, the data of task gsm8k, cannot be had from its hub "
        "(http://127.0.0.1:9 does not answer, or is switched off); give its files with evaluation.data, a folder with "
    )
    assert said.endswith("gsm8k/test.jsonl, train.jsonl (docs/evaluation.md); neither can the data of PIQA")


def test_a_hub_that_refuses_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # it knows no HEAD: 501
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub._answers(f"http://127.0.0.1:{server.server_port}")
    assert not hub._answers("http://127.0.0.1:9/")
    assert not hub._answers("file:///etc/passwd")


def test_gpqa_is_shuffled_alike_whenever_it_is_read(lm: DecoderLM, rows: Path, tmp_path: Path) -> None:
    """Requests, examples and scores read its documents anew; a right letter that moved would make the score noise."""
    first = scored(lm, asked("GPQA-Main", data=str(rows), limit=None), tmp_path / "a")
    again = scored(lm, asked("GPQA-Main", data=str(rows), limit=100), tmp_path / "b")
    pd.testing.assert_frame_equal(first[1], again[1])


def test_rows_are_there_for_every_benchmark() -> None:
    tasks: list[Benchmark] = list(BENCHMARKS.values())
    assert {one.task for one in tasks} == {name for name in ROWS if "/" not in name}


@pytest.mark.parametrize("line", ['{"goal": "no other field"}', "not JSON", ""])
def test_rows_that_cannot_be_read_are_named(line: str, lm: DecoderLM, tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        scored(lm, asked("PIQA", data={"piqa": str(tmp_path)}), tmp_path / "store")
    assert str(caught.value).startswith(f"evaluation.data: {tmp_path}: task piqa cannot read its rows (")
    assert "\n" not in str(caught.value)


def test_rows_that_make_no_question_are_named(lm: DecoderLM, rows: Path, tmp_path: Path) -> None:
    """What is wrong with a row shows when it is asked: its benchmark and where it is from are said."""
    asked_written = {"MMLU": {**DATA["benchmarks"]["MMLU"], "task": "mmlu_astronomy", "protocol": "generative"}}
    good = ROWS["mmlu"]["test"][0]
    for split in ("test", "dev"):
        shutil.copy(rows / "mmlu" / f"{split}.jsonl", tmp_path)
    for limit, bad, message in (
        (2, {"answer": 7}, "has answer 7, which is none of its 4 choices nor their indices; its rows are from "),
        (3, {"question": None}, "can make no question of one of its rows ("),
    ):
        two = json.dumps(good) + "\n" + json.dumps({**good, **bad}) + "\n"
        (tmp_path / "test.jsonl").write_text(two, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            changed = asked(data={"mmlu_astronomy": str(tmp_path)}, benchmarks=asked_written, limit=limit)
            scored(lm, changed, tmp_path / "store")
        said = str(caught.value)
        assert said.startswith("evaluation.benchmarks.MMLU: ") and message in said and str(tmp_path) in said, said
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(UserError, match="test.jsonl: no rows; task mmlu_astronomy reads split test from it"):
        scored(lm, changed.model_copy(update={"limit": 4}), tmp_path / "store")


def test_the_embedded_suite_takes_no_other_data(built_pool: Store, node: Node) -> None:
    data = yaml.safe_load((CONF.parent / "embedded.yaml").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match="evaluation.data: harness embedded reads the items of the pool"):
        settings_digest(node, parse(Evaluation, {**data, "probes": None, "data": "elsewhere"}), built_pool)
