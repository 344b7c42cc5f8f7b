"""Trains a classifier on labelled documents, calibrates it, and reports how good it is on documents it has not seen."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from davinci.data.l3_model_filter.classifier_model import Classifier, Floats, calibrated
from davinci.data.l3_model_filter.word_features import FEATURES, features
from davinci.errors import UserError

SHARES = {"train": 0.7, "calibration": 0.15, "heldout": 0.15}
LEAST = 5  # documents of each label in each split
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
HIGH, LOW = "high", "low"
_BINS = 15
Split = Literal["train", "calibration", "heldout"]


@dataclass(frozen=True)
class Labelled:
    """A document with its label; documents of one `key` are in one split."""

    text: str
    label: str
    key: str


def read_labels(path: Path, at_least: float | None = None) -> list[Labelled]:
    """Read a JSONL file of ``{"text": …, "label": …}``, with ``id`` or ``split_key`` where rows are of one document.

    Args:
        path: the file.
        at_least: labels are numbers, and those from here on are ``high``, others ``low``.

    Raises:
        UserError: naming the line: not JSON, a key is missing, or a label is no name (with `at_least`, no number).
    """
    rows = []
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_labelled(line, f"{path}:{number}", at_least))
    return rows


def _labelled(line: str, where: str, at_least: float | None) -> Labelled:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not JSON") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "label" not in row:
        raise UserError(f'{where}: a row has the keys "text" and "label"')
    label = row["label"]
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if at_least is not None:
        if not number:
            raise UserError(f"{where}: label {label!r} is no number; --at-least is for labels that are")
        label = HIGH if label >= at_least else LOW
    elif number:
        raise UserError(f"{where}: label {label!r} is a number; --at-least X makes {HIGH} and {LOW} of numbers")
    elif not isinstance(label, str):
        raise UserError(f"{where}: label {label!r} is no name")
    key = row.get("split_key") or row.get("id") or hashlib.sha256(row["text"].encode()).hexdigest()
    return Labelled(row["text"], label, str(key))


def split_of(key: str) -> Split:
    """The split that documents of a key belong to: decided by the key alone."""
    place = int.from_bytes(hashlib.sha256(b"classifier\0" + key.encode()).digest()[:8], "big") / 2**64
    if place < SHARES["train"]:
        return "train"
    return "calibration" if place < SHARES["train"] + SHARES["calibration"] else "heldout"


def train(rows: Sequence[Labelled], strength: float = 10.0) -> Classifier:
    """Fit, calibrate on documents that were not fitted, and measure on a third part.

    Args:
        rows: the labelled documents.
        strength: inverse strength of the L2 penalty.

    Raises:
        UserError: fewer than two labels, or too few documents of one of them in a split.
    """
    from sklearn.linear_model import LogisticRegression

    labels = sorted({row.label for row in rows})
    if len(labels) < 2:
        raise UserError(f"a classifier needs two labels or more, not {len(labels)} ({', '.join(labels) or 'none'})")
    parts: dict[str, list[Labelled]] = {name: [] for name in SHARES}
    for row in rows:
        parts[split_of(row.key)].append(row)
    for name, part in parts.items():
        counts = Counter(row.label for row in part)
        for label in labels:
            if counts[label] < LEAST:
                raise UserError(
                    f"label {label!r}: {counts[label]} documents in the split {name}; at least {LEAST} are needed"
                )
    texts = {name: features([row.text for row in part]) for name, part in parts.items()}
    seen = np.unique(texts["train"].indices)  # what is seen nowhere has no weight
    fitted = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    fitted.fit(texts["train"][:, seen], [row.label for row in parts["train"]])
    coefficients = np.zeros((len(_rows(labels)), FEATURES), dtype=np.float32)
    coefficients[:, seen] = fitted.coef_
    intercepts = fitted.intercept_.astype(np.float64)
    raw = texts["calibration"] @ coefficients.T + intercepts
    truth = np.array([row.label for row in parts["calibration"]])
    calibration = np.array([_platt(raw[:, row], truth == label) for row, label in enumerate(_rows(labels))])
    probabilities = calibrated(texts["heldout"] @ coefficients.T + intercepts, calibration)
    about = {
        "documents": {name: dict(sorted(Counter(row.label for row in part).items())) for name, part in parts.items()},
        "report": report(labels, probabilities, [row.label for row in parts["heldout"]]),
    }
    return Classifier(tuple(labels), coefficients, intercepts, calibration, about)


def _rows(labels: Sequence[str]) -> Sequence[str]:
    """The labels that have a row of weights: of two only the second."""
    return labels[1:] if len(labels) == 2 else labels


def _platt(raw: Floats, truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the sigmoid that fits best, with Platt's smoothed targets."""
    from scipy.optimize import minimize

    high, low = (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2)
    target = np.where(truth, high, low)

    def loss(at: Floats) -> float:
        value = raw * at[0] + at[1]
        return float(np.sum(np.logaddexp(0, value) - target * value))

    found = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def report(labels: Sequence[str], probabilities: Floats, truth: Sequence[str]) -> dict[str, Any]:
    """Quality on documents that were neither fitted nor calibrated on.

    Of each label: how many have it, the area under its ROC curve, and at each threshold of its probability precision
    (null where nothing reaches it), recall and the share kept. Of all: accuracy of the likeliest label, and the
    expected calibration error of its probability in 15 equal bins (Guo et al., arXiv 1706.04599, section 2).
    """
    from sklearn.metrics import roc_auc_score

    actual = np.array(truth)
    best = probabilities.argmax(axis=1)
    right = np.array(labels)[best] == actual
    by_label = {}
    for column, label in enumerate(labels):
        score, positive = probabilities[:, column], actual == label
        by_label[label] = {
            "documents": int(positive.sum()),
            "auc": round(float(roc_auc_score(positive, score)), 4),
            "thresholds": [_at(threshold, score, positive) for threshold in THRESHOLDS],
        }
    return {
        "documents": len(actual),
        "accuracy": round(float(right.mean()), 4),
        "calibration_error": round(_calibration_error(probabilities.max(axis=1), right), 4),
        "labels": by_label,
    }


def _at(threshold: float, score: Floats, positive: Any) -> dict[str, float | None]:
    kept = score >= threshold
    both = float((kept & positive).sum())
    return {
        "threshold": threshold,
        "precision": round(both / float(kept.sum()), 4) if kept.any() else None,
        "recall": round(both / float(positive.sum()), 4),
        "kept": round(float(kept.mean()), 4),
    }


def _calibration_error(confidence: Floats, right: Any) -> float:
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for one in range(_BINS):
        inside = bins == one
        if inside.any():
            error += float(inside.mean()) * abs(float(right[inside].mean()) - float(confidence[inside].mean()))
    return error
