"""``import``: a folder that transformers saved, as the weights that a curriculum begins with."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from davinci.commands.output import print_json
from davinci.config import Model, Pretrained
from davinci.data.pool_files import CONF
from davinci.errors import UserError
from davinci.imported import RECORD, SMALL_FILES, TOKENIZER, WEIGHTS, Imported, read
from davinci.store import Store, atomic_file, atomic_folder, checked_name, file_digest, sync, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from davinci.model.importing import Folder

_HEADER = "# Written by `python -m davinci import`"
_SMALL = re.compile(r"(?!.*\.index\.json$).*\.(json|txt|md|jinja|model)$|(LICEN[SC]E|NOTICE).*")


def run(options: argparse.Namespace, store: Store) -> int:
    folder = Path(options.folder).absolute()
    name = checked_name(options.name or _name_of(folder), "model")
    conf = (Path(options.config_dir).absolute() if options.config_dir else CONF) / "model" / f"{name}.yaml"
    if conf.exists() and not conf.read_text(encoding="utf-8").startswith(_HEADER):
        raise UserError(f"--as {name}: {conf} is a model already; give another name")
    found, weights = _read(folder, name)
    target = store.imported(name)
    there = _same(read(store, name), found, weights, target) if target.exists() else None
    with atomic_file(conf) as temporary:  # begun first: where it cannot be written, no weights are
        record = there or _taken(found, weights, target, store)
        model = record.model.model_copy(update={"pretrained": Pretrained(name=name, digest=record.digest)})
        header = f"{_HEADER}: the shape of {record.architecture} in {folder.name}, and its weights.\n"
        temporary.write_text(header + _yaml(model), encoding="utf-8")
    if options.json:
        print_json({"model": name, "architecture": record.architecture, "digest": record.digest, "config": str(conf)})
    else:
        print(_said(name, record, conf, options, store))
    return 0


def _name_of(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "_", folder.name.lower()).strip("_") or "imported"


def _read(folder: Path, name: str) -> tuple[Folder, Mapping[str, Tensor]]:
    """What is in the folder, all of it looked at, its tokenizer too."""
    from davinci.data.tokenizer import read_tokenizer
    from davinci.model.importing import read_folder

    found = read_folder(folder, name)
    if (folder / TOKENIZER).is_file():
        read_tokenizer(folder / TOKENIZER)
    weights = found.weights()
    found.require_unchanged(weights)
    return found, weights


def _taken(found: Folder, weights: Mapping[str, Tensor], target: Path, store: Store) -> Imported:
    """Write ``imported/NAME`` in one step."""
    from safetensors.torch import save_file

    store.require_writable()
    with atomic_folder(target) as temporary:
        save_file({key: one.contiguous() for key, one in weights.items()}, temporary / WEIGHTS)
        small = temporary / SMALL_FILES
        small.mkdir()
        for file in sorted(found.path.iterdir()):
            if file.is_file() and _SMALL.fullmatch(file.name):
                shutil.copyfile(file, small / file.name)
        tokenizer = small / TOKENIZER
        record = Imported(
            model=found.model,
            architecture=found.layout.architecture,
            dtypes=dict(found.dtypes),
            digest=file_digest(temporary / WEIGHTS),
            tokenizer_digest=file_digest(tokenizer) if tokenizer.is_file() else None,
            licence=_licence(small),
            source=found.path.name,
        )
        write_json(temporary / RECORD, record.model_dump(mode="json", exclude_defaults=True))
        sync(temporary / WEIGHTS)
    return record


def _same(record: Imported, found: Folder, weights: Mapping[str, Tensor], target: Path) -> Imported:
    """The record of what is there. Raises UserError where the folder's model or its tokenizer is another."""
    from safetensors.torch import load_file

    tokenizer, there = found.path / TOKENIZER, load_file(target / WEIGHTS)
    alike = {
        "another shape": (record.model, record.dtypes) == (found.model, dict(found.dtypes)),
        "another tokenizer": record.tokenizer_digest == (file_digest(tokenizer) if tokenizer.is_file() else None),
        "other weights": there.keys() == weights.keys() and all(there[key].equal(one) for key, one in weights.items()),
    }
    for what, is_so in alike.items():
        if not is_so:
            raise UserError(f"--as {target.name}: {target} has {what}; give another name")
    return record


def _licence(small: Path) -> str | None:
    """As the model card's front matter states it, else the first line of LICENSE."""
    card = small / "README.md"
    if card.is_file():
        stated = re.match(r"---\n(?:.*\n)*?license:[ \t]*(\S.*)\n", card.read_text(encoding="utf-8", errors="replace"))
        if stated:
            return stated[1].strip()
    for file in sorted(small.glob("LICEN[SC]E*")):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in lines if line.strip()), None)
    return None


def _yaml(model: Model) -> str:
    """Its shape, and of its variants those that are not at their defaults."""
    neutral = {key for key, one in Model.model_fields.items() if getattr(model, key) == one.default}
    values: dict[str, Any] = model.model_dump(mode="json", exclude=neutral)
    return str(yaml.safe_dump(values, sort_keys=False, width=110))


def _said(name: str, record: Imported, conf: Path, options: argparse.Namespace, store: Store) -> str:
    weights = store.imported(name)
    shown = Path(os.path.relpath(weights)) if weights.is_relative_to(Path.cwd()) else weights
    where = f" --config-dir {options.config_dir}" if options.config_dir else ""
    tokenize = f"python -m davinci data tokenize FILES --pool mine{where} --tokenizer"
    lines = [
        f"{record.architecture}, licence {record.licence or 'not stated'}: {weights}",
        f"# {conf} is written. Text of your own, by its tokenizer:",
        f"{tokenize} {shown / SMALL_FILES}",
        f"# then what that prints, with model={name}; the same shape from scratch: model={name} model.pretrained=null",
        f"# as it came: python -m davinci export imported:{name} DIR",
    ]
    if record.tokenizer_digest is None:
        lines[1] = (
            f"# {conf} is written. The folder has no {TOKENIZER}: PATH is the model's from elsewhere, such a file or a "
            "folder with one. That it is the model's is not checked. Text of your own, by it:"
        )
        lines[2] = f"{tokenize} PATH"
    return "\n".join(lines)
