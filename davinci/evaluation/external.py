"""Another's model, a folder as transformers writes it, through a suite: by lm-eval's own HFLM, offline.

Results are kept in ``external/<name>-<digest>/`` of the store, under keys made of the same things as a checkpoint's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from davinci.config import Evaluation
from davinci.errors import UserError, nearest
from davinci.evaluation.evaluate import Result, served
from davinci.evaluation.settings import digest, file_digest_once, tasks_digest
from davinci.store import Store, read_json, write_json

Dtype = Literal["float32", "bfloat16", "float16"]

# What a text's tokens depend on: files of the folder whose name says so.
_TOKENIZER = re.compile(
    r"tokenizer.*|vocab.*|merges\.txt|special_tokens_map\.json|added_tokens\.json|.*\.(model|tiktoken)"
)
# Items that go through the model at once.
_BATCH = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True)
class External:
    """A model that was not trained here. `weights` is the digest of its weights and config, `tokenizer` of what it
    reads text with; `name` is also its folder's name in the store."""

    name: str
    path: Path
    folder: Path
    weights: str
    tokenizer: str


def identify(path: Path, store: Store) -> External:
    """Which model is in the folder `path`, by the digests of its files.

    Raises:
        UserError: no such folder, or none that transformers could load without unpickling; transformers is missing.
    """
    if not path.is_dir():
        siblings = [one.name for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"hf:{path}: no such folder{nearest(path.name, siblings) if siblings else ''}")
    if not (path / "config.json").is_file():
        raise UserError(f"hf:{path}: not a folder that transformers saved: it has no config.json")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise UserError(f"hf:{path}: no weights in *.safetensors; pickled ones (.bin, .pt) are not loaded")
    texts = sorted(file for file in path.iterdir() if file.is_file() and _TOKENIZER.fullmatch(file.name))
    if not texts:
        raise UserError(f"hf:{path}: it has no tokenizer; save it there too: tokenizer.save_pretrained")
    if find_spec("transformers") is None:
        raise UserError("hf: the package transformers is not installed; pip install 'davinci[hf]'")
    found = digest(_digests([path / "config.json", *weights]))
    base = re.sub(r"[^A-Za-z0-9._+-]+", "-", path.resolve().name).strip("-.") or "model"
    name = f"{base}-{found[:8]}"
    return External(name, path.resolve(), store.external(name), found, digest(_digests(texts)))


def evaluate(
    model: External, evaluation: Evaluation, store: Store, *, pool: str, dtype: Dtype = "float32"
) -> tuple[bool, list[Result]]:
    """Results of the model on each benchmark of the suite, and whether they were there already.

    Args:
        model: from `identify`.
        evaluation: the suite.
        store: where pools are read and results kept.
        pool: whose benchmark items the project's own tasks read.
        dtype: what the model computes in.

    Raises:
        UserError: an unknown task or metric, missing benchmark items, or a folder that transformers cannot load.
    """
    computed = {"transformers": version("transformers"), "dtype": dtype, "generation": _generation(model.path)}

    def settings_of(one: Evaluation) -> str:
        return tasks_digest(pool, one, store, model=computed, tokenizer=model.tokenizer)

    def key_of(one: Evaluation) -> str:
        return digest([model.weights, settings_of(one)])[:24]

    about = {"name": model.name, "path": str(model.path), "weights": model.weights, "tokenizer": model.tokenizer}
    _note(model.folder / "model.json", about)
    loaded = False

    def load() -> Any:
        nonlocal loaded
        loaded = True
        return _load(model, dtype)

    settings = settings_of(evaluation)
    results = served(model.folder / "evaluations", key_of, load, store.pool(pool), evaluation, store, settings)
    record(model, evaluation, results, settings)
    return not loaded, results


def record(model: External, evaluation: Evaluation, results: Sequence[Result], settings: str) -> None:
    """Note the scores in ``scores.json``: by suite key and benchmark, those made last."""
    path = model.folder / "scores.json"
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    known[evaluation.key] = {
        "suite": evaluation.suite,
        "limit": evaluation.limit,
        "settings": settings,
        "benchmarks": {
            result.benchmark: {
                "domain": result.domain,
                "protocol": result.protocol,
                "metric": result.metric,
                "task": evaluation.benchmarks[result.benchmark].task,
                "num_fewshot": evaluation.benchmarks[result.benchmark].num_fewshot,
                "score": result.score,
                "items": result.items,
                "truncated": result.truncated,
                **({"outcomes": result.outcomes} if result.outcomes else {}),
                "chance": result.chance,
                "key": result.key,
            }
            for result in results
        },
    }
    _note(path, known)


def _note(path: Path, value: Any) -> None:
    if not path.is_file() or read_json(path) != value:
        write_json(path, value)


def _digests(files: Sequence[Path]) -> dict[str, str]:
    return {file.name: file_digest_once(file) for file in files}


def _generation(path: Path) -> str | None:
    """Digest of the folder's own settings of generation, where it has any."""
    file = path / "generation_config.json"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _load(model: External, dtype: Dtype) -> Any:
    """lm-eval's HFLM of the folder."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(name, "1")
    import torch
    import transformers

    from davinci.evaluation.hf_model import ExternalLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return ExternalLM(
            pretrained=str(model.path),
            device=device,
            dtype=dtype,
            batch_size=_BATCH[device],
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, json.JSONDecodeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"hf:{model.path}: transformers cannot load it: {said}") from None
