"""Records survive torn lines and let the last attempt win."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.tracking.records import Writer, read

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["train", "heldout", "evaluation"]),
        st.integers(0, 3),  # step
        st.integers(1, 3),  # attempt
        st.sampled_from([None, "code", "science"]),
        st.floats(allow_subnormal=False, allow_nan=False, allow_infinity=False),
    ),
    max_size=20,
)


def write_rows(path: Path, rows: list[tuple[str, int, int, str | None, float]]) -> None:
    for kind, step, attempt, domain, loss in rows:
        with Writer(path, attempt) as writer:
            extra = {} if domain is None else {"domain": domain}
            writer.write(kind, step * 100, step, loss=loss, **extra)


def expected(rows: list[tuple[str, int, int, str | None, float]]) -> dict[tuple[str, int, str | None], float]:
    best: dict[tuple[str, int, str | None], tuple[int, int, float]] = {}
    for place, (kind, step, attempt, domain, loss) in enumerate(rows):
        key = (kind, step, domain)
        best[key] = max(best.get(key, (0, 0, 0.0)), (attempt, place, loss), key=lambda one: one[:2])
    return {key: value[2] for key, value in best.items()}


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, torn=st.integers(0, 200))
def test_last_attempt_wins_and_a_torn_tail_costs_one_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, str | None, float]], torn: int
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    write_rows(path, rows)
    if rows:
        whole = path.read_bytes()
        last = whole.rstrip(b"\n").rfind(b"\n") + 1
        # Cut somewhere inside the last line (never its whole object: that would not be torn).
        cut = last + min(torn, len(whole) - last - 2)
        path.write_bytes(whole[:cut])
    survivors = rows[:-1]
    write_rows(path, [("train", 99, 1, None, 0.5)])
    found = {(row["kind"], row["step"], row.get("domain")): row["loss"] for row in read(path)}
    assert found == {**expected(survivors), ("train", 99, None): 0.5}
    assert [row["tokens"] for row in read(path)] == sorted(row["tokens"] for row in read(path))


def test_row_contents(tmp_path: Path) -> None:
    path = tmp_path / "node" / "records.jsonl"
    with Writer(path, attempt=2) as writer:
        writer.write("train", 640, 5, loss=2.5, grad_norm=float("inf"), **{"loss/code": 1.0})
        writer.commit()
        (row,) = read(path)
    assert (row["kind"], row["attempt"], row["tokens"], row["step"]) == ("train", 2, 640, 5)
    assert (row["loss"], row["loss/code"]) == (2.5, 1.0)
    assert row["grad_norm"] is None
    assert path.read_text().count("\n") == 1
    with pytest.raises(ValueError, match="closed"):
        writer.write("train", 1, 1)


def test_missing_file_and_foreign_lines(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []
    path = tmp_path / "records.jsonl"
    good = {"kind": "train", "attempt": 1, "tokens": 1, "step": 1}
    path.write_text('[1]\n3\n{"kind": "train"}\n' + json.dumps(good) + "\n\n")
    assert read(path) == [good]
