"""A folder that transformers saved, as a decoder's shape and weights: the layouts of `export`, used backwards.

What ``config.json`` says is turned into a shape, the shape into what ``config.json`` and the tensors of such a model
are, and both are compared with what is there: whatever this program would not compute is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from davinci.config import Model
from davinci.errors import UserError, nearest
from davinci.model.config_json import class_of, described
from davinci.model.config_keys import source
from davinci.model.decoder import Decoder
from davinci.model.export import EMBEDDING, UNEMBEDDING
from davinci.model.layout import Layout
from davinci.model.layout_choice import of_class
from davinci.model.layout_weights import Weights, of_nemotron
from davinci.store import read_json

CONFIG = "config.json"
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Folder:
    """What is in a folder: its model, the class of transformers it is of, and each tensor's dtype by its own name."""

    path: Path
    model: Model
    layout: Layout
    dtypes: Mapping[str, str]
    files: Mapping[str, Path]

    def weights(self) -> Weights:
        """The weights by a decoder's names, float32. Raises UserError for one that is not finite or not to be read."""
        found: Weights = {}
        for file in sorted(set(self.files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  not a mapping
                    if name in self.dtypes:
                        found[name] = opened.get_tensor(name).float()
                        if not bool(found[name].isfinite().all()):
                            raise UserError(f"{file}: {name} holds numbers that are not finite")
                        if self.layout.is_zero(name) and bool(found[name].any()):
                            raise UserError(f"{file}: {name} is not 0, and no such bias is computed here")
        if self.model.tie_embeddings:
            found.pop(UNEMBEDDING, None)
        return self.layout.ours(found, self.model)

    def require_unchanged(self, weights: Mapping[str, Tensor]) -> None:
        """Raise UserError where `originals` of the weights are not the folder's tensors, bit for bit.

        Nemotron's gains stand in files less 1: of these, what float32 makes of the number and 1 has to be the same,
        bit for bit, which is all that the class computes with.
        """
        back = originals(weights, self.model, self.layout.architecture, self.dtypes)
        for file in sorted(set(self.files.values())):
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118  not a mapping
                    if name not in back or self._is_same(name, back[name], opened.get_tensor(name)):
                        continue
                    if name == UNEMBEDDING and self.model.tie_embeddings:
                        raise UserError(f"{file}: {name} is not {EMBEDDING}, but {CONFIG} says that they are tied")
                    raise UserError(
                        f"{file}: {name} would not come out again as it is: its numbers are lost in float32"
                    )

    def _is_same(self, name: str, *both: Tensor) -> bool:
        if self.layout.decoders is of_nemotron:
            both = tuple(of_nemotron({name: one.float()}, self.model)[name] for one in both)
        return torch.equal(*both)


def originals(weights: Mapping[str, Tensor], model: Model, architecture: str, dtypes: Mapping[str, str]) -> Weights:
    """A decoder's weights by the names of a class of transformers, in `dtypes` by those names."""
    layout = of_class(architecture, model.experts.count > 0)
    theirs = layout.theirs(weights, model)
    if UNEMBEDDING in dtypes and UNEMBEDDING not in theirs:
        theirs[UNEMBEDDING] = theirs[EMBEDDING].clone()
    return {name: one.to(_DTYPES[dtypes[name]]).contiguous() for name, one in theirs.items()}


def read_folder(path: Path, name: str) -> Folder:
    """Look into a folder; its tensors are not read yet.

    Raises:
        UserError: it is none that transformers saved, of a class or with settings that are not computed here, its
            weights are pickled or damaged, or a tensor is missing, superfluous or of another shape.
    """
    if not path.is_dir():
        siblings = [one.name for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
        raise UserError(f"{path}: no such folder{nearest(path.name, siblings) if siblings else ''}")
    if not (path / CONFIG).is_file():
        raise UserError(f"{path}: not a folder that transformers saved: it has no {CONFIG}")
    config = read_json(path / CONFIG)
    layout = class_of(config, path / CONFIG)
    files = _files(path)
    headers = {name: (file, *header) for file in sorted(set(files.values())) for name, header in _header(file).items()}
    wrong = [tensor for tensor, file in files.items() if headers.get(tensor, (None,))[0] != file]
    if wrong:
        raise UserError(f"{path / _INDEX}: {wrong[0]} is not in {files[wrong[0]].name}")
    # Before anything of the size that config.json says is made.
    layers, held = config.get("num_hidden_layers"), _numbers(headers, "layers")
    if type(layers) is int and layers > held:
        raise UserError(f"{path / CONFIG}: num_hidden_layers: {layers}, but there are tensors of {held} layers")
    model = described(config, layout, name, path / CONFIG)
    held = _numbers(headers, "experts")
    if model.experts.count > held and layout.model_type != "granitemoehybrid":  # whose experts are one tensor
        said = source("experts.count", config)
        raise UserError(f"{path / CONFIG}{said}: {model.experts.count}, but there are tensors of {held} experts")
    try:
        with torch.device("meta"):
            expected = layout.theirs(dict(Decoder(model, model.vocab_size).named_parameters()), model)
    except (TypeError, RuntimeError):  # sizes that torch cannot count
        value, key = max((value, key) for key, value in config.items() if type(value) is int)
        raise UserError(f"{path / CONFIG}: {key}: {value} is more than a tensor can be sized") from None
    superfluous = {one for one in headers if one.endswith("rotary_emb.inv_freq")}
    if model.tie_embeddings and UNEMBEDDING in headers:
        expected[UNEMBEDDING] = expected[EMBEDDING]  # once more
    for tensor in sorted(expected.keys() - headers.keys()):
        raise UserError(f"{path}: tensor {tensor} of {layout.architecture} is missing")
    for tensor in sorted(headers.keys() - expected.keys() - superfluous):
        raise UserError(f"{path}: tensor {tensor} has no place in {layout.architecture} as {CONFIG} describes it")
    for tensor, one in expected.items():
        _, dtype, shape = headers[tensor]
        if shape != tuple(one.shape):
            raise UserError(f"{path}: tensor {tensor} is {list(shape)}, {CONFIG} says {list(one.shape)}")
        if dtype not in _DTYPES:
            raise UserError(f"{path}: tensor {tensor} is of {dtype}; {', '.join(_DTYPES)} are accepted")
    dtypes = {tensor: headers[tensor][1] for tensor in expected}
    return Folder(path, model, layout, dtypes, {tensor: headers[tensor][0] for tensor in expected})


def _numbers(names: Iterable[str], what: str) -> int:
    """How many layers, or experts of a layer, have a tensor at least, by their names."""
    found = re.compile(rf"\.{what}\.(\d+)\.")
    return len({match[1] for match in map(found.search, names) if match})


def _files(path: Path) -> dict[str, Path]:
    """The file of each tensor."""
    if (path / _ONE).is_file():
        return dict.fromkeys(_header(path / _ONE), path / _ONE)
    if not (path / _INDEX).is_file():
        pickled = [one.name for ending in ("*.bin", "*.pt", "*.pth") for one in path.glob(ending)]
        also = f"; {pickled[0]} is pickled, and not loaded: save it as safetensors" if pickled else ""
        raise UserError(f"{path}: no weights in {_ONE} or {_INDEX}{also}")
    places = read_json(path / _INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(one, str) and Path(one).name == one for one in places.values()
    ):
        raise UserError(f"{path / _INDEX}: weight_map: tensors to names of files beside it are accepted")
    return {tensor: path / file for tensor, file in places.items()}


def _header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of each tensor of a file."""
    with _opened(file) as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  not a mapping
        return {name: (one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: missing or damaged ({str(error).splitlines()[0]})") from None
