"""A text classifier: hashed words and pairs of words, logistic regression, calibrated. Kept as JSON and npz, no pickle.

FOLDER/
  classifier.json   labels, features, how labels were read, the report on held-out documents
  weights.npz       coefficients float32[labels, features], intercepts float64[labels], calibration float64[labels, 2]
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from davinci.data.l3_model_filter.word_features import FEATURES, features
from davinci.errors import UserError
from davinci.store import atomic_file, file_digest, read_json, write_json

FORMAT = 1
_DESCRIPTION, _WEIGHTS = "classifier.json", "weights.npz"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. `labels` are in order of name; of two labels, only the second has weights."""

    labels: tuple[str, ...]
    coefficients: npt.NDArray[np.float32]
    intercepts: Floats
    calibration: Floats
    about: dict[str, Any]

    def raw(self, texts: Sequence[str]) -> Floats:
        """Decision values float64[texts, rows of weights]."""
        return np.asarray(features(texts) @ self._columns) + self.intercepts

    @functools.cached_property
    def _columns(self) -> Floats:
        return np.ascontiguousarray(self.coefficients.T, dtype=np.float64)

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Calibrated probabilities float64[texts, labels]; rows sum to 1."""
        return calibrated(self.raw(texts), self.calibration)

    def save(self, folder: Path) -> None:
        """Write the folder's two files."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / _WEIGHTS) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, coefficients=self.coefficients, intercepts=self.intercepts, calibration=self.calibration
            )
        digest = file_digest(folder / _WEIGHTS)
        write_json(
            folder / _DESCRIPTION,
            {"format": FORMAT, "labels": list(self.labels), "features": FEATURES, "weights": digest, **self.about},
        )


def calibrated(raw: Floats, calibration: Floats) -> Floats:
    """Platt's sigmoid of each decision value (1999, "Probabilistic outputs for support vector machines", section 2.2),
    normalised over labels; `calibration` has a slope and an offset a row."""
    with np.errstate(over="ignore"):
        positive: Floats = 1.0 / (1.0 + np.exp(-(raw * calibration[:, 0] + calibration[:, 1])))
    if positive.shape[1] == 1:
        return np.hstack([1.0 - positive, positive])
    totals = positive.sum(axis=1, keepdims=True)
    equal = np.full_like(positive, 1.0 / positive.shape[1])
    return np.where(totals > 0, positive / np.where(totals > 0, totals, 1.0), equal)


@functools.lru_cache(maxsize=4)
def load(folder: Path) -> Classifier:
    """Read a folder that `Classifier.save` wrote.

    Raises:
        UserError: it is none, or its weights are not those it was saved with.
    """
    if not (folder / _DESCRIPTION).is_file():
        raise UserError(
            f"{folder}: no classifier (no {_DESCRIPTION}); make one: python -m davinci data train-classifier"
        )
    about = read_json(folder / _DESCRIPTION)
    if about.get("format") != FORMAT or about.get("features") != FEATURES:
        raise UserError(f"{folder}: a classifier of another version of this program; train it again")
    weights = folder / _WEIGHTS
    if not weights.is_file() or file_digest(weights) != about["weights"]:
        raise UserError(f"{weights}: not the weights that {_DESCRIPTION} names; train it again")
    with np.load(weights, allow_pickle=False) as arrays:
        return Classifier(
            tuple(about["labels"]), arrays["coefficients"], arrays["intercepts"], arrays["calibration"], about
        )


def digest_of(folder: Path) -> str:
    """SHA-256 of what decides a classifier's answers: its labels and weights."""
    classifier = load(folder)
    named = json.dumps([FORMAT, FEATURES, list(classifier.labels), classifier.about["weights"]])
    return hashlib.sha256(named.encode()).hexdigest()
