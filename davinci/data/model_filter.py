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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.data.documents import Document

BUCKETS = 2**16
DROPPED_BYTES = 5  # one byte in so many goes
_WORD = re.compile(r"\w+|[^\w\s]")
_UNIT = 1000  # of weights and margins, in a nat

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What the model says of one source's documents: the domain it takes each for, and each one's margin.

    Margins are in thousandths of a nat a word; one below zero belongs to a document taken for another domain.
    """

    taken_for: tuple[str, ...]
    margins: tuple[int, ...]


@dataclass(frozen=True)
class Quality:
    """How well the classifier tells one domain from the others, on documents that it has not seen."""

    precision: float
    recall: float


def judge(sources: Mapping[str, tuple[str, Sequence[Document]]]) -> tuple[dict[str, Judged], dict[str, Quality]]:
    """Judge the documents of `sources` (name to domain and documents) by a model fitted on their other half.

    Returns what it says of each source, and its quality by domain.

    Raises:
        ValueError: there are fewer than two domains, so nothing to tell apart.
    """
    domains = sorted({domain for domain, _ in sources.values()})
    if len(domains) < 2:
        raise ValueError(f"a classifier of domains needs two of them, not {len(domains)}")
    counted = {name: [_count(one.text) for one in documents] for name, (_, documents) in sources.items()}
    halves = {name: [half(one) for one in documents] for name, (_, documents) in sources.items()}
    totals = np.zeros((2, len(domains), BUCKETS), dtype=np.int64)
    for name, (domain, _) in sources.items():
        for side, (words, counts) in zip(halves[name], counted[name], strict=True):
            np.add.at(totals[side, domains.index(domain)], words, counts)
    weights = [_weights(totals[1 - side]) for side in (0, 1)]  # those that judge a half come from the other
    judged: dict[str, Judged] = {}
    confusion: Counter[tuple[str, str]] = Counter()
    for name, (domain, _) in sources.items():
        pairs = [
            _judge(weights[side][:, words] @ counts, domains.index(domain), int(counts.sum()))
            for side, (words, counts) in zip(halves[name], counted[name], strict=True)
        ]
        judged[name] = Judged(tuple(domains[taken] for taken, _ in pairs), tuple(margin for _, margin in pairs))
        confusion.update((domain, taken) for taken in judged[name].taken_for)
    return judged, {domain: _quality(domain, confusion) for domain in domains}


def drop_least_typical(
    domain: str, documents: Sequence[Document], judged: Judged
) -> tuple[frozenset[str], dict[str, Any]]:
    """The ids of the documents of a source that go, and what its card says of them.

    They are those of the lowest margin, as long as they make up no more than the share of bytes that may go.
    """
    sizes = [len(one.text.encode()) for one in documents]
    left = sum(sizes) // DROPPED_BYTES
    dropped: set[str] = set()
    reasons: Counter[str] = Counter()
    lowest = 0
    for index in sorted(range(len(documents)), key=lambda index: (judged.margins[index], documents[index].id)):
        lowest = judged.margins[index]
        left -= sizes[index]
        if left < 0:
            break
        dropped.add(documents[index].id)
        other = judged.taken_for[index]
        reasons[f"least typical of {domain}" if other == domain else f"closer to {other}"] += 1
    return frozenset(dropped), {"dropped": dict(sorted(reasons.items())), "lowest_margin": lowest / _UNIT}


def half(document: Document) -> int:
    """The half (0 or 1) that a document belongs to: all that comes from one file belongs to one."""
    return hashlib.sha256(b"half\0" + document.split_key.encode()).digest()[0] & 1


def _count(text: str) -> tuple[Integers, Integers]:
    """The hashed words of a text and how often each stands in it."""
    found = Counter(_WORD.findall(text.lower()))
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


def _quality(domain: str, confusion: Counter[tuple[str, str]]) -> Quality:
    right = confusion[domain, domain]
    taken = sum(count for (_, one), count in confusion.items() if one == domain)
    members = sum(count for (one, _), count in confusion.items() if one == domain)
    return Quality(precision=round(right / max(1, taken), 4), recall=round(right / max(1, members), 4))
