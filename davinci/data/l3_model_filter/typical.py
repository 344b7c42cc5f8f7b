"""Darwin Level L3: a small model keeps the documents that are typical of their domain.

A filter by a model usually learns educational value from a stronger model's labels. None are at hand here, so the label
is one that comes for free: the domain a document was taken from. What is kept reads like its domain, which is not the
same as being good: release notes, tables of constants and lists of names go, and so do speeches in recent English where
most are old.

The model is a multinomial naive Bayes classifier of domains with equal priors, over hashed words and signs. A
document's margin is how much likelier its words are in its domain than in the likeliest other, in nats a word; the
lowest margins go, up to a fifth of a source's bytes, so that the level changes which documents a source holds and not
how the sources of a domain are mixed. The classifier is cross-fitted: files fall into two halves by the hash of their
name, and each half is judged by the counts of the other.

Every step is exact, so that machines agree on each document: counts, weights (in thousandths of a nat), sums and
margins are integers, and ties fall by the document's id.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from davinci.config import Level
from davinci.data.documents import Document, size_of
from davinci.data.long_texts import stretches
from davinci.data.operations import Corpus, CorpusOperation, Places, operation
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import read_json, write_json

BUCKETS = 2**16
DROPPED_BYTES = 5  # one byte in so many goes
_WORD = re.compile(r"\w+|[^\w\s]")
_UNIT = 1000  # of weights and margins, in a nat

Integers = npt.NDArray[np.int64]


class Verdicts(NamedTuple):
    """What the model says of documents: the domain (by index) it takes each for, and its margin.

    Margins are in thousandths of a nat a word; one below zero belongs to a document taken for another domain.
    """

    ids: Sequence[str]
    taken: Sequence[int]
    margins: Sequence[int]
    sizes: Sequence[int]


@operation("typical")
class Typical(CorpusOperation):
    """Drops the least typical documents of every source.

    The model neither sees nor drops held-out documents: Level L3 is measured on those of Level L2. Memory holds a row a
    document.
    """

    level: ClassVar[Level] = "L3"
    pool_wide: ClassVar[bool] = True

    def prepare(self, corpus: Corpus, places: Places) -> None:
        domains = sorted(set(corpus.domains.values()))
        if len(domains) < 2:
            raise UserError(f"typical: a classifier of domains needs two of them in a pool, not {len(domains)}")
        own = {name: domains.index(domain) for name, domain in corpus.domains.items()}
        totals = np.zeros((2, len(domains), BUCKETS), dtype=np.int64)
        for name, parts in corpus.map(count_words, corpus.heldout_fractions).items():
            totals[:, own[name]] += sum(parts)
        weights = places.step / "weights.npy"
        # Those that judge a half come from the other.
        np.save(weights, np.stack([_weights(totals[1 - side]) for side in (0, 1)]))
        surveyed = corpus.map(judge, corpus.heldout_fractions, own, dict.fromkeys(own, weights))
        verdicts = {name: _joined(parts) for name, parts in surveyed.items()}
        lowest = {}
        for name, found in verdicts.items():
            gone, lowest[name] = least_typical(found)
            reasons = {
                found.ids[place]: f"least typical of {domains[own[name]]}"
                if found.taken[place] == own[name]
                else f"closer to {domains[found.taken[place]]}"
                for place in gone
            }
            write_json(places.step / f"{name}.dropped.json", reasons)
        confusion = Counter((own[name], taken) for name, found in verdicts.items() for taken in found.taken)
        quality = {domain: _quality(place, confusion) for place, domain in enumerate(domains)}
        write_json(places.step / "report.json", {"classifier": quality, "lowest_margin": lowest})

    def run(self, documents: Iterator[Document], tally: Tally, places: Places, source: str) -> Iterator[Document]:
        dropped = read_json(places.step / f"{source}.dropped.json")
        for one in documents:
            if one.id in dropped:
                tally.drop(one, dropped[one.id])
            else:
                yield one


def count_words(documents: Iterator[Document], heldout_fraction: float) -> Integers:
    """How often each hashed word stands in the training documents of each half, int64[2, BUCKETS]."""
    totals = np.zeros((2, BUCKETS), dtype=np.int64)
    for one in documents:
        if not one.is_heldout(heldout_fraction):
            words, counts = _count(one.text)
            np.add.at(totals[half(one)], words, counts)
    return totals


def judge(documents: Iterator[Document], heldout_fraction: float, own: int, path: Path) -> Verdicts:
    """What the weights in `path`, int64[halves, domains, BUCKETS], say of training documents of the domain `own`."""
    weights = np.load(path, mmap_mode="r")
    found = Verdicts([], [], [], [])
    for one in documents:
        if not one.is_heldout(heldout_fraction):
            words, counts = _count(one.text)
            taken, margin = _judge(weights[half(one)][:, words] @ counts, own, int(counts.sum()))
            for column, value in zip(found, (one.id, taken, margin, size_of(one.text)), strict=True):
                column.append(value)  # type: ignore[attr-defined]
    return found


def least_typical(found: Verdicts) -> tuple[list[int], float]:
    """The places of the documents that go, and the lowest margin in nats a word of those that stay.

    They are those of the lowest margin, as long as they make up no more than the share of bytes that may go.
    """
    left = sum(found.sizes) // DROPPED_BYTES
    gone: list[int] = []
    lowest = 0
    for place in sorted(range(len(found.ids)), key=lambda place: (found.margins[place], found.ids[place])):
        lowest = found.margins[place]
        left -= found.sizes[place]
        if left < 0:
            break
        gone.append(place)
    return gone, lowest / _UNIT


def _joined(parts: Sequence[Verdicts]) -> Verdicts:
    return Verdicts(
        [one for part in parts for one in part.ids],
        [one for part in parts for one in part.taken],
        [one for part in parts for one in part.margins],
        [one for part in parts for one in part.sizes],
    )


def half(document: Document) -> int:
    """The half (0 or 1) that a document belongs to: all that comes from one file belongs to one."""
    return hashlib.sha256(b"half\0" + document.split_key.encode()).digest()[0] & 1


def _count(text: str) -> tuple[Integers, Integers]:
    """The hashed words of a text and how often each stands in it."""
    found: Counter[str] = Counter()
    for stretch in stretches(text):
        found.update(_WORD.findall(stretch.lower()))
    words = [zlib.crc32(word.encode()) % BUCKETS for word in found]
    return np.array(words, dtype=np.int64), np.array(list(found.values()), dtype=np.int64)


def _weights(counts: Integers) -> Integers:
    """The logarithm of each word's probability in each domain, by counts int64[domains, words] and one more of each.

    Rounded, so that the last bit of a machine's logarithm decides nothing.
    """
    smoothed = counts + 1
    logarithms: npt.NDArray[np.float64] = np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
    return np.rint(_UNIT * logarithms).astype(np.int64)


def _judge(scores: Integers, own: int, words: int) -> tuple[int, int]:
    """The likeliest domain (its own, where that is as likely), and the margin of the own, by scores int64[domains]."""
    other = max((index for index in range(len(scores)) if index != own), key=lambda index: int(scores[index]))
    lead = int(scores[own] - scores[other])
    return (own if lead >= 0 else other), lead // max(1, words)


def _quality(domain: int, confusion: Counter[tuple[int, int]]) -> dict[str, float]:
    """Precision and recall of one domain, on documents that the model has not seen."""
    right = confusion[domain, domain]
    taken = sum(count for (_, one), count in confusion.items() if one == domain)
    members = sum(count for (one, _), count in confusion.items() if one == domain)
    return {"precision": round(right / max(1, taken), 4), "recall": round(right / max(1, members), 4)}
