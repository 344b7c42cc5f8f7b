"""Rows of L3: a trained classifier of documents, beside datatrove's fastText filter, each trained on the same labels.

The label is the kind of source that a document came from: prose, or technical text. Half the documents are trained on,
the other half is filtered and timed. Two classifiers do not decide everything alike, so that what is compared beside
speed is how often each is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _data_rules import contend, real_texts, speed, write
from _table import Row

from davinci.store import Store

KINDS = {"prose": ("addresses", "scripture"), "technical": ("manuals", "sympy_text", "networkx_text")}
KEPT = "technical"
AS_RIGHT = 0.98  # of the peer's share of right decisions


def classifier_rows(store: Store, characters: int, folder: Path, python: Path) -> list[Row]:
    """Speed of filtering, and how often what was kept or dropped is right."""
    labels: dict[str, str] = {}
    texts: dict[str, str] = {}
    training = []
    for kind, sources in KINDS.items():
        for index, one in enumerate(real_texts(store, characters // 2, sources)):
            if index % 2:
                labels[one.id], texts[one.id] = kind, one.text
            else:
                training.append({"text": one.text, "label": kind, "id": one.id})
    labelled = folder / "labels.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in training), encoding="utf-8")
    size = write(folder, "classifier", texts, labels=str(labelled), keep=KEPT, models=str(folder))
    ours, theirs = contend("daVinci", "classifier", folder), contend("datatrove", "classifier", folder, python)
    right, peers = _right(ours, labels), _right(theirs, labels)
    alike = sum((one in ours["kept"]) == (one in theirs["kept"]) for one in texts) / len(texts)
    print(f"  of {len(texts):,} documents {alike:.2%} were decided alike by the two classifiers")
    return [
        speed("trained classifier", size, sum(ours["seconds"].values()), sum(theirs["seconds"].values())),
        Row("trained classifier: share right", f"{right:.2%}", f"{peers:.2%} (datatrove)", right / peers, AS_RIGHT),
    ]


def _right(answer: dict[str, Any], labels: dict[str, str]) -> float:
    kept = set(answer["kept"])
    return sum((kind == KEPT) == (one in kept) for one, kind in labels.items()) / len(labels)
