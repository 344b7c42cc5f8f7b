"""Probe items: reading them, making the embedded set, and scoring them as a plain forward pass would."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from davinci.config import Model, Probes, parse
from davinci.errors import UserError
from davinci.evaluation import probe_makers, probe_set
from davinci.evaluation.probe_items import Item, read_items, with_digest, write_items
from davinci.evaluation.probe_key import EMBEDDED, probe_file, set_key
from davinci.evaluation.probe_scores import ProbeSet
from davinci.model.decoder import Decoder
from davinci.store import Store, read_json

GOOD = {"id": 1, "capability": "addition", "context": "1 + 1 =", "choices": [" 2", " 3"], "answer": 0}


def written(folder: Path, *rows: object) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_both_forms_of_a_line_are_read(tmp_path: Path) -> None:
    target = {"id": "x", "capability": "facts", "context": "", "target": " b", "foils": [" a", " c"]}
    by_name = GOOD | {"id": 2, "answer": " 3"}
    first, second, third = read_items(written(tmp_path, GOOD, "", target, by_name))
    assert (first.id, first.choices, first.answer) == ("1", (" 2", " 3"), 0)
    assert (second.choices[second.answer], len(second.choices)) == (" b", 3)
    assert third.answer == 1
    again = tmp_path / "again.jsonl"
    again.write_text(write_items([first, second, third]))
    assert read_items(again) == [first, second, third]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "2: not JSON"),
        ("[1]", "2: a JSON object"),
        (GOOD | {"answer": 2}, "2: answer: one of the choices, or an index from 0 to 1"),
        (GOOD | {"answer": " 9"}, "2: answer: ' 9' is none of the choices"),
        (GOOD | {"choices": [" 2"]}, "2: choices: at least 2"),
        (GOOD | {"choices": [" 2", " 2"]}, "2: choices: two are the same"),
        (GOOD | {"target": " 2"}, "2: target: give choices and answer, or target and foils, not both"),
        ({"id": 2, "capability": "a", "context": ""}, "2: choices: give choices and answer, or target and foils"),
        (GOOD | {"kapability": "x"}, "2: kapability: unknown key.*capability"),
        ({key: GOOD[key] for key in GOOD if key != "context"}, "2: context: missing"),
        (GOOD, "2: id: '1' is that of line 1 too"),
        (GOOD | {"id": 2, "capability": "../x"}, "2: capability: "),
    ],
    ids=str,
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(UserError, match=f"mine.jsonl:{message}"):
        read_items(written(tmp_path, GOOD, row))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone.jsonl: cannot be read"):
        read_items(tmp_path / "gone.jsonl")
    with pytest.raises(UserError, match="has no items"):
        read_items(written(tmp_path, ""))


def test_a_file_of_one_s_own_goes_into_the_store_by_its_content(tmp_path: Path) -> None:
    from plans import small_run

    store, path = Store(tmp_path / "store"), written(tmp_path, GOOD)
    run = small_run(evaluation={"probes": {"every_tokens": 10, "file": str(path)}})
    probes = with_digest(run).evaluation.probes
    assert probes is not None and probes.digest is not None
    probe_set.prepare(store, "tiny", probes)
    kept = probe_file(store, "tiny", set_key(probes))
    assert kept.read_text() == path.read_text()
    path.write_text(json.dumps(GOOD | {"context": "2 + 0 ="}))
    probe_set.prepare(store, "tiny", probes)  # there already
    other = with_digest(run).evaluation.probes
    assert other is not None and set_key(other) != set_key(probes)
    path.write_text(json.dumps(GOOD | {"context": "0 + 2 ="}))
    with pytest.raises(UserError, match="changed while it was launched"):
        probe_set.prepare(store, "tiny", other)


def test_the_embedded_set_is_the_same_every_time_and_large(built_pool: Store) -> None:
    probe_set.make(built_pool, "embedded")
    path = probe_file(built_pool, "embedded", EMBEDDED)
    items, text = read_items(path), path.read_text()
    manifest = read_json(path.parent / "manifest.json")
    assert len(items) > 2_000
    assert {item.capability for item in items} >= {*probe_makers.MAKERS, *probe_set.DOCUMENTS}
    assert manifest["seed"] == probe_set.SEED and manifest["capabilities"]["addition"]["items"] == probe_set.ITEMS
    before = path.stat().st_mtime_ns
    probe_set.make(built_pool, "embedded")
    assert path.stat().st_mtime_ns == before, "current already"
    path.unlink()
    probe_set.make(built_pool, "embedded")
    assert path.read_text() == text


@pytest.mark.parametrize("capability", probe_makers.MAKERS)
def test_questions_have_one_answer(capability: str) -> None:
    for context, right, wrong in probe_makers.first(probe_makers.MAKERS[capability], Random(1), 60):
        assert context and right and len({right, *wrong}) == 1 + len(wrong) >= 2


def test_sums_are_right() -> None:
    for name in ("addition", "subtraction", "multiplication"):
        for context, right, _ in probe_makers.first(probe_makers.MAKERS[name], Random(2), 50):
            assert eval(context.rpartition(": ")[2].removesuffix(" =")) == int(right)


class _Alone:
    rank, world = 0, 1

    def interleave(self, mine: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
        return mine


class _OneOf:
    """A rank whose `others`' columns are known: what an all-reduce gives, without processes."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.mine: npt.NDArray[np.float64] | None = None
        self.whole: npt.NDArray[np.float64] | None = None

    def interleave(self, mine: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
        self.mine = mine
        whole = np.zeros((*mine.shape[:-1], size)) if self.whole is None else self.whole
        whole[..., self.rank :: self.world] = mine
        return whole


@pytest.fixture(scope="module")
def tokenizer(built_pool: Store) -> Tokenizer:
    return Tokenizer.from_file(str(built_pool.pool("embedded") / "tokenizer.json"))


@pytest.fixture(scope="module")
def decoder(tiny_model: Model) -> Decoder:
    model = Decoder(tiny_model, 512)
    model.initialise(5)
    return model


text = st.text("abc de01=+\n", max_size=30)
some_items = st.lists(
    st.tuples(text, st.lists(text.filter(bool), min_size=2, max_size=4, unique=True), st.sampled_from("xyz")),
    min_size=1,
    max_size=12,
).map(
    lambda found: [
        Item(id=str(index), capability=tag, context=context, choices=tuple(choices), answer=index % len(choices))
        for index, (context, choices, tag) in enumerate(found)
    ]
)


@settings(max_examples=40, deadline=None)
@given(some_items)
def test_scores_are_those_of_a_plain_forward_pass(tokenizer: Tokenizer, decoder: Decoder, items: list[Item]) -> None:
    expected: dict[str, list[tuple[float, float]]] = {}
    for item in items:
        scores = []
        context = tokenizer.encode(item.context).ids
        for choice in item.choices:
            whole = tokenizer.encode(item.context + choice).ids
            same = 0
            while same < min(len(context), len(whole) - 1) and context[same] == whole[same]:
                same += 1
            tokens = whole if same else [0, *whole]
            start = same if same else 1
            with torch.inference_mode():
                logs = torch.log_softmax(decoder(torch.tensor([tokens[:-1]]))[0], dim=-1)
            scores.append(sum(float(logs[at - 1, tokens[at]]) for at in range(start, len(tokens))))
        right = scores.pop(item.answer)
        expected.setdefault(item.capability, []).append((right - max(scores), -right))
    rows = ProbeSet(items, tokenizer, 64).score(decoder, _Alone())
    assert [row["capability"] for row in rows] == sorted(expected)
    for row in rows:
        own = expected[row["capability"]]
        assert row["items"] == len(own) and row["capabilities"] == len(expected)
        assert row["margin"] == pytest.approx(sum(margin for margin, _ in own) / len(own), abs=1e-3)
        assert row["nats"] == pytest.approx(sum(nats for _, nats in own) / len(own), abs=1e-3)
        if all(abs(margin) > 1e-3 for margin, _ in own):
            assert row["accuracy"] == sum(margin > 0 for margin, _ in own) / len(own)


@pytest.mark.parametrize("world", [2, 3, 50])
def test_any_number_of_ranks_gives_the_same_bits(
    built_pool: Store, tokenizer: Tokenizer, decoder: Decoder, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_set.make(built_pool, "embedded")
    items = read_items(probe_file(built_pool, "embedded", EMBEDDED))[::40]
    monkeypatch.setitem(__import__("davinci.evaluation.probe_scores", fromlist=["x"]).BATCH_TOKENS, "cpu", 200)
    probes = ProbeSet(items, tokenizer, 64)
    whole: npt.NDArray[np.float64] | None = None
    passes = []
    monkeypatch.setattr(Decoder, "hidden", lambda *a, hidden=Decoder.hidden, **k: passes.append(0) or hidden(*a, **k))
    counts = set()
    for rank in range(world):
        ranks, before = _OneOf(rank, world), len(passes)
        ranks.whole = whole
        rows = probes.score(decoder, ranks)
        counts.add(len(passes) - before)
        whole = ranks.interleave(ranks.mine, 0) if ranks.whole is not None else None
        whole = np.zeros((ranks.mine.shape[0], len(probes._batches))) if whole is None else whole  # type: ignore[union-attr]
        whole[..., rank::world] = ranks.mine
    assert len(counts) == 1, "a rank that left early would leave the others waiting"
    speed = "items_per_second"
    alone = [{name: row[name] for name in row if name != speed} for row in probes.score(decoder, _Alone())]
    assert [{name: row[name] for name in row if name != speed} for row in rows] == alone


def test_long_contexts_lose_their_beginning(tokenizer: Tokenizer, decoder: Decoder) -> None:
    items = [Item(id="1", capability="long", context="a b c " * 100, choices=(" d", " e"), answer=0)]
    (row,) = ProbeSet(items, tokenizer, 64).score(decoder, _Alone())
    assert row["items"] == 1 and np.isfinite(row["nats"])


def test_the_key_says_which_items(tmp_path: Path) -> None:
    assert set_key(parse(Probes, {"every_tokens": 1})) == EMBEDDED
    assert set_key(parse(Probes, {"every_tokens": 1, "file": "x", "digest": "a" * 64})) == "a" * 12
