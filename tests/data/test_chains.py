"""Chains over a pool of a user's own: what is redone and what is not, whatever the parts and the workers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from davinci.__main__ import main
from davinci.data.build import Request, build
from davinci.data.cards import read_card
from davinci.data.operations import depths_of, read_chain, registered, up_to
from davinci.data.pool_files import read_pool
from davinci.errors import UserError
from davinci.store import Store

REPOSITORY = Path(__file__).parents[2]
ONE = Request(workers=1)


def rows(count, seed=0, words=24):
    random = Random(seed)
    vocabulary = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu") for b in ("ra", "se", "ti", "vo")]
    return [{"text": " ".join(random.choices(vocabulary, k=words)), "n": one} for one in range(count)]


def write_rows(path, some):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in some))


def write_pool(folder, chain, depths=("L0", "L2"), name="own", **more):
    source = {"domain": "general", "depths": list(depths), "chain": chain, "heldout_fraction": 0.1}
    pool = {"name": name, "tokenizer": name, "vocab_size": 280, "sources": {"texts": {**source, **more}}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(pool))
    return read_pool(folder / f"{name}.yaml")


CHAIN = [{"jsonl": {"paths": ["data/*.jsonl"]}}, "plain_text", "exact_duplicates"]


@pytest.fixture
def pool(tmp_path):
    """Three files of rows, one row in each a duplicate."""
    for one in range(3):
        write_rows(tmp_path / f"data/{one}.jsonl", rows(60, one) + rows(1))
    return write_pool(tmp_path, CHAIN)


def parts(store, name="own"):
    folder = store.pool(name) / "build/parts/texts"
    return {path.name: path.stat().st_ino for path in folder.glob("*.json")}


def digests(store, name="own"):
    return {depth: one.digest for depth, one in read_card(store, name).sources["texts"].variants.items()}


def test_card_says_what_every_step_did(pool, tmp_path):
    store = Store(tmp_path / "store")
    build(pool, store, lambda line: None, ONE)
    card = read_card(store, "own").sources["texts"]
    read, text, distinct = card.variants["L2"].chain
    assert (read["operation"], read["documents"], text["documents_in"]) == ("jsonl", 183, 183)
    assert distinct["documents"] == 180
    assert distinct["dropped"] == {"exact duplicate": 3} and len(distinct["samples"]["exact duplicate"]) == 3
    assert card.provenance["files"].keys() == {f"data/{one}.jsonl" for one in range(3)}
    assert card.licence["spdx"] == "NOASSERTION"


def test_an_operation_at_the_end_reuses_all_before(pool, tmp_path):
    store = Store(tmp_path / "store")
    build(pool, store, lambda line: None, ONE)
    before = parts(store)
    longer = write_pool(tmp_path, [*CHAIN, {"own_operations:Shout": {"mark": "?"}}], ("L0", "L2", "L4"))
    build(longer, store, lambda line: None, ONE)
    assert before.items() <= parts(store).items() and len(parts(store)) == len(before) + 3
    heldout = [json.loads(line) for line in (store.pool("own") / "texts@L4/heldout.jsonl").open()]
    assert heldout and all(row["text"].endswith("\n?") and row["text"] == row["text"].upper() for row in heldout)
    variants = read_card(store, "own").sources["texts"].variants
    assert variants["L4"].documents_digest == variants["L2"].documents_digest != variants["L0"].documents_digest
    other = write_pool(tmp_path, [*CHAIN, {"own_operations:Shout": {"mark": "."}}], ("L0", "L2", "L4"))
    last = parts(store).items() - before.items()
    build(other, store, lambda line: None, ONE)  # what no chain says any more goes
    assert before.items() <= parts(store).items() and not last & parts(store).items()
    steps = {path.name.partition("-")[0] for path in (store.pool("own") / "build/steps").iterdir()}
    assert steps == {"exact_duplicates"}


def test_an_operation_in_a_depth_reuses_all_before(pool, tmp_path):
    """Also where the depth's end, that was kept, is an end no more."""
    store = Store(tmp_path / "store")
    build(pool, store, lambda line: None, ONE)
    lines = []
    build(write_pool(tmp_path, [*CHAIN, {"plain_rules": {"kind": "technical"}}]), store, lines.append, ONE)
    assert not any("exact_duplicates" in line and "decided" in line for line in lines)


def test_a_touched_file_is_read_again_and_no_other(pool, tmp_path):
    store = Store(tmp_path / "store")
    build(pool, store, lambda line: None, ONE)
    before, first = parts(store), digests(store)
    os.utime(tmp_path / "data/1.jsonl", ns=(1, 1))
    build(read_pool(pool.path), store, lambda line: None, ONE)
    # Read and normalised again: one part of three. What a corpus operation says hangs on all of them.
    assert len(before.keys() & parts(store).keys()) == 2 * 2
    assert digests(store) == first
    write_rows(tmp_path / "data/3.jsonl", rows(60, 7))
    build(read_pool(pool.path), store, lambda line: None, ONE)
    assert read_card(store, "own").sources["texts"].variants["L0"].chain[0]["documents"] == 243


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on(tmp_path, workers):
    for one in range(4):
        write_rows(tmp_path / f"data/{one}.jsonl", [{**row, "id": f"{one}-{row['n']}"} for row in rows(30, one)])
    notes, unless = tmp_path / "notes", tmp_path / "go"
    own = {"own_operations:Killed": {"at": "2-7", "unless": str(unless), "notes": str(notes)}}
    write_pool(tmp_path, [{"jsonl": {"paths": "data/*.jsonl", "id": "id"}}, own], ("L0", "L1"))
    command = [sys.executable, "-m", "davinci", "data", "build", str(tmp_path / "own.yaml"), f"--workers={workers}"]
    command += ["--store", str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    seen = [line.split() for line in notes.read_text().splitlines()]
    workers_left = [psutil.Process(int(pid)) for pid in {pid for _, pid in seen} if psutil.pid_exists(int(pid))]
    assert not psutil.wait_procs(workers_left, timeout=30)[1]
    store = Store(tmp_path / "store")
    done = parts(store)
    assert read_card(store, "own") is None and (len(done) >= 2 or workers == 2)
    unless.touch()
    notes.unlink()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert done.items() <= parts(store).items()
    documents = [line.split()[0] for line in notes.read_text().splitlines()]
    kept = 4 - len(set(documents)) / 30  # files of which both depths were done; a worker may have been between them
    assert (kept == len(done) // 2 or workers == 2) and len(done) - 4 <= kept <= len(done) // 2
    assert len(set(documents)) == len(documents)


@settings(max_examples=5, deadline=None)
@given(st.integers(900, 9000), st.integers(1, 4))
def test_any_parts_give_the_same(tmp_path_factory, part_bytes, files):
    """However files are cut, and however many hold the rows, a depth holds the same documents in the same order."""
    folder = tmp_path_factory.mktemp("cut")
    everything = [{"id": str(row["n"]), **row} for row in [*rows(40), *rows(20, 1)]]
    for one in range(files):
        cut = slice(one * len(everything) // files, (one + 1) * len(everything) // files)
        write_rows(folder / f"data/{one}.jsonl", everything[cut])
    chain = [{"jsonl": {"paths": "data/*.jsonl", "id": "id", "part_bytes": part_bytes}}, *CHAIN[1:]]
    store = Store(folder / "store")
    build(write_pool(folder, chain), store, lambda line: None, ONE)
    assert digests(store) == WHOLE or not WHOLE
    WHOLE.update(digests(store))


WHOLE: dict[str, str] = {}


def test_only_what_is_asked_for_is_built(pool, tmp_path, capsys):
    store = tmp_path / "store"
    line = ["data", "build", str(pool.path), "--store", str(store), "--workers", "1"]
    assert main([*line, "--depth", "l0"]) == 0
    assert set(read_card(Store(store), "own").sources["texts"].variants) == {"L0"}
    assert main(line) == 0
    assert set(read_card(Store(store), "own").sources["texts"].variants) == {"L0", "L2"}
    assert main([*line, "--depth", "l3"]) == 2
    assert "--depth l3: pool own holds l0, l2" in capsys.readouterr().err
    assert main([*line[:-1], "-1"]) == 2
    assert main([*line, "--source", "text"]) == 2
    assert "nearest: texts" in capsys.readouterr().err


def test_a_pool_in_another_config_folder(pool, tmp_path, capsys):
    (tmp_path / "conf/pool").mkdir(parents=True)
    pool.path.rename(tmp_path / "conf/pool/own.yaml")
    (tmp_path / "data").rename(tmp_path / "conf/pool/data")
    line = ["data", "build", "own", "--config-dir", str(tmp_path / "conf"), "--store", str(tmp_path / "store")]
    assert main([*line, "--workers", "1"]) == 0
    assert "pool own built" in capsys.readouterr().out


def test_a_source_that_loses_all_says_where(pool, tmp_path):
    losing = write_pool(tmp_path, [*CHAIN[:2], {"plain_rules": {"kind": "python"}}])
    with pytest.raises(UserError, match=r"texts: no documents at L2: jsonl left 183; .*plain_rules left 0 \(too"):
        build(losing, Store(tmp_path / "store"), lambda line: None, ONE)


def test_two_sources_of_other_order_cannot_wait_for_each_other(tmp_path):
    write_rows(tmp_path / "data/0.jsonl", rows(30))
    file = write_pool(tmp_path, [CHAIN[0], "typical", {"own_wide:Wide": {}}], ("L3",))
    text = yaml.safe_load(file.path.read_text())
    other = dict(text["sources"]["texts"], domain="code", chain=[CHAIN[0], {"own_wide:Wide": {}}, "typical"])
    text["sources"]["others"] = other
    file.path.write_text(yaml.safe_dump(text))
    with pytest.raises(UserError, match="have them in the same order"):
        build(read_pool(file.path), Store(tmp_path / "store"), lambda line: None, ONE)


@given(st.lists(st.sampled_from(["plain_text", {"plain_rules": {"kind": "prose"}}, "exact_duplicates", "typical"])))
def test_a_depth_is_the_longest_beginning(steps):
    chain = read_chain([{"jsonl": {"paths": "x"}}, *steps], "chain")
    levels = [one.level for one in chain]
    for depth in depths_of(chain):
        beginning = up_to(chain, depth)
        assert max(one.level for one in beginning) == depth
        assert len(beginning) == len(chain) or levels[len(beginning)] > depth
    assert depths_of(chain) == sorted(set(depths_of(chain)))


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        (["plain_text"], r"chain\[0\]: plain_text does not read; a chain begins with one of archive"),
        ([CHAIN[0], CHAIN[0]], r"chain\[1\]: jsonl can only be first"),
        ([CHAIN[0], "plain_texts"], r"chain\[1\]: unknown operation 'plain_texts'; nearest: plain_text"),
        ([{"jsonl": {"path": "x"}}], r"chain\[0\]\.jsonl: path: unknown key; nearest: paths"),
        ([CHAIN[0], "own_operations:Shouts"], r"own_operations:Shouts cannot be imported"),
        ([CHAIN[0], "json:loads"], r"json:loads is no Operation"),
        ([CHAIN[0], ["plain_text"]], r"is no operation; accepted are NAME"),
        ([], "an empty chain"),
    ],
)
def test_a_wrong_chain_is_one_line(chain, said):
    with pytest.raises(UserError, match=said):
        read_chain(chain, "pool.yaml: sources.a.chain")


def test_the_documentations_pool_is_built(tmp_path):
    text = (REPOSITORY / "docs/data.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "mine.yaml").write_text(example)
    random = Random(0)
    words = ["".join(random.choices("aeiourstlnmd", k=random.randint(2, 8))) for _ in range(300)]
    body = [{"body": " ".join(random.choices(words, k=60)) + ".", "url": f"http://h/{one}"} for one in range(80)]
    write_rows(tmp_path / "corpus/a.jsonl", [*body, body[0]])
    store = Store(tmp_path / "store")
    build(read_pool(tmp_path / "mine.yaml"), store, lambda line: None, ONE)
    variants = read_card(store, "mine").sources["web"].variants
    assert {depth: one.chain[-1]["documents"] for depth, one in variants.items()} == {"L0": 81, "L1": 81, "L2": 80}


def test_every_operation_says_its_level():
    assert {one.level for one in registered().values()} >= {"L0", "L1", "L2", "L3", "L5"}
    assert all(one.__doc__ for one in registered().values())
