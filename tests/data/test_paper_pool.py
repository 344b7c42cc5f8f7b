"""conf/pool/davinci.yaml against the paper's Table 2, and its loaders against the operations there are."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import analysis
from davinci.data.operations import Reader, depths_of, read_chain
from davinci.data.pool_files import find_pool

PUBLISHED = Path(analysis.__file__).parent / "published" / "data_pool.csv"
STAGES = ("s1_1", "s1_2", "s2_1", "s2_2")
POOL = find_pool("davinci").pool


def table() -> list[dict[str, Any]]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_sources_are_those_of_the_paper_in_its_order() -> None:
    assert list(POOL.sources) == [row["source"] for row in table()] and len(POOL.sources) == 28


@pytest.mark.parametrize("row", table(), ids=lambda row: row["source"])
def test_every_source_is_as_table_2_has_it(row: dict[str, Any]) -> None:
    source = POOL.sources[row["source"]]
    assert source.domain == row["domain"] and source.depths[-1] == row["darwin_level"]
    assert source.tokens == round(1e9 * float(row["pool_tokens_b"]))
    used = [stage for stage in STAGES if row[f"stage_{stage[1:]}"] == "1"]
    assert list(source.substages or ()) == used


@pytest.mark.parametrize("name", POOL.sources)
def test_every_source_says_how_it_is_had_or_why_it_is_not(name: str) -> None:
    source = POOL.sources[name]
    assert source.licence is not None and source.licence.spdx
    if not source.chain:
        assert "not public" in source.licence.note or "not verified" in source.licence.note
        return
    chain = read_chain(source.chain, name)
    assert isinstance(chain[0], Reader) and chain[0].name in ("huggingface", "jsonl")
    assert source.depths[-1] in depths_of(chain)


def test_files_of_ones_own_are_one_override() -> None:
    chain = read_chain([{"parquet": {"paths": ["mine/*.parquet"]}}, "published_l4"], "here")
    assert [step.level for step in chain] == ["L0", "L4"] and depths_of(chain) == ["L0", "L4"]
