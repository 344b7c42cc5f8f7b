"""Documents that are nearly another one: MinHash signatures, compared where they fall into one bucket (LSH)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from davinci.config.base import Positive
from davinci.data.documents import Document
from davinci.data.l2_rules.deduplication import Deduplication, Hashes, as_hashes, hash_of, joined, write_dropped
from davinci.data.l2_rules.document_rule import Share
from davinci.data.l2_rules.minhash import signature
from davinci.data.operations import Corpus, Places, operation
from davinci.store import write_json

Integers = npt.NDArray[np.int64]
# Of one part: the hashes of ids, S16[documents]; the keys of their buckets, uint64[documents, bands], 0 without
# n-grams; the lowest 16 bits of each hash, uint16[documents, bands x rows], nothing where they are not compared.
_Survey = tuple[Hashes, npt.NDArray[np.uint64], npt.NDArray[np.uint16]]


@operation("near_duplicates")
class NearDuplicates(Deduplication):
    """Of documents that are nearly the same, directly or by way of others, the first stays.

    A signature of `bands` x `rows` hashes is cut into bands; two documents of similarity s (Jaccard, of their n-grams
    of words) agree in a band with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman: Mining of Massive
    Datasets, 3.4). The defaults are FineWeb's (arXiv 2406.17557, section 3.4): 14 x 8 over 5-grams, 0.77 at s = 0.75
    and 0.92 at 0.8. Without a `threshold` such documents are the same; with one, those whose signatures agree in that
    share of hashes as well, which keeps apart most of those below it.

    Memory holds 16 + 8 `bands` bytes a document, and 2 `bands` x `rows` more with a threshold.
    """

    reason: ClassVar[str] = "near duplicate"

    words: Positive = 5
    bands: Positive = 14
    rows: Positive = 8
    threshold: Share | None = None

    def prepare(self, corpus: Corpus, places: Places) -> None:
        found = corpus.map(functools.partial(_survey, self))
        ids = {name: joined([ids for ids, _, _ in parts]) for name, parts in found.items()}
        keys = np.concatenate([keys for parts in found.values() for _, keys, _ in parts])
        hashes = np.concatenate([hashes for parts in found.values() for _, _, hashes in parts])
        pairs = np.concatenate([self._pairs(keys[:, band], hashes) for band in range(self.bands)], axis=1)
        graph = coo_array((np.ones(pairs.shape[1], dtype=bool), (pairs[0], pairs[1])), shape=(len(keys), len(keys)))
        groups, group_of = connected_components(graph, directed=False)
        goes = np.ones(len(keys), dtype=bool)
        goes[np.unique(group_of, return_index=True)[1]] = False
        write_dropped(places, ids, goes)
        largest = int(np.bincount(group_of).max(initial=0))
        report = {"documents": len(keys), "groups": groups, "largest_group": largest}
        write_json(places.step / "report.json", report)

    def _pairs(self, keys: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint16]) -> Integers:
        """Documents that are the same by one band, int64[2, pairs]: each with one that came before it."""
        order = np.argsort(keys, kind="stable")
        order = order[keys[order] != 0]
        begins = np.flatnonzero(np.diff(keys[order], prepend=np.uint64(0)))
        sizes = np.diff(begins, append=len(order))
        firsts = np.repeat(order[begins], sizes)
        if self.threshold is None:
            return np.stack([firsts, order])[:, firsts != order]
        twos = begins[sizes == 2]
        found = [np.stack([order[twos], order[twos + 1]])]
        found[0] = found[0][:, _agree(hashes, *found[0]) >= self.threshold]
        for begin, size in zip(begins[sizes > 2], sizes[sizes > 2], strict=True):
            found.append(self._within(order[begin : begin + size], hashes))
        return np.concatenate(found, axis=1)

    def _within(self, bucket: Integers, hashes: npt.NDArray[np.uint16]) -> Integers:
        """The same by threshold in a bucket: each document with the first that came before it and begins a group."""
        assert self.threshold is not None
        begins: list[int] = []
        pairs: list[tuple[int, int]] = []
        for one in bucket.tolist():
            alike = np.flatnonzero(_agree(hashes, np.array(begins, dtype=np.int64), one) >= self.threshold)
            if len(alike):
                pairs += [(begins[at], one) for at in alike.tolist()]
            else:
                begins.append(one)
        return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def _agree(hashes: npt.NDArray[np.uint16], some: Integers, others: Integers | int) -> npt.NDArray[np.float64]:
    """The share of hashes in which documents agree."""
    share: npt.NDArray[np.float64] = (hashes[some] == hashes[others]).mean(axis=1)
    return share


def _survey(operation: NearDuplicates, documents: Iterator[Document]) -> _Survey:
    ids: list[bytes] = []
    keys: list[list[int]] = []
    hashes: list[npt.NDArray[np.uint16]] = []
    count = operation.bands * operation.rows
    nothing = np.zeros(count, dtype=np.uint16)
    for one in documents:
        ids.append(hash_of(one.id))
        least = signature(one.text, operation.words, count)
        if least is None:
            keys.append([0] * operation.bands)
            hashes.append(nothing)
        else:
            bands = least.reshape(operation.bands, operation.rows)
            keys.append([xxhash.xxh64_intdigest(band.tobytes()) or 1 for band in bands])
            hashes.append(least.astype(np.uint16))
    compared = hashes if operation.threshold is not None else []
    return (
        as_hashes(ids),
        np.array(keys, dtype=np.uint64).reshape(-1, operation.bands),
        np.array(compared, dtype=np.uint16).reshape(-1, count),
    )
