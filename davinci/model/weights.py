"""The weights of a checkpoint: ``model.safetensors`` (float32, Qwen2's names) and its digest in ``state.json``.

Where the stage keeps an average of them it is ``average.safetensors``, of the same names and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from davinci.config import Model
from davinci.errors import UserError
from davinci.model.decoder import Decoder
from davinci.store import read_json

WEIGHTS = "model.safetensors"
AVERAGE = "average.safetensors"
STATE = "state.json"


def weights_digest(folder: Path, file: str = WEIGHTS) -> str:
    """SHA-256 of a checkpoint's weights `file`, as recorded when it was written: equal weights, equal digest.

    Raises:
        UserError: `folder` has no readable state, or no such file.
    """
    try:
        return str(read_json(folder / STATE)["digests"][file])
    except (OSError, KeyError, TypeError):
        raise UserError(f"{folder / STATE}: not the state of a checkpoint with {file}") from None


def load_model(folder: Path, model: Model, vocab_size: int, file: str = WEIGHTS) -> Decoder:
    """The decoder of a checkpoint, on the CPU. Raises UserError where its weights do not fit the shape."""
    decoder = Decoder(model, vocab_size)
    load_weights(decoder, folder, file)
    return decoder


def load_mean(files: Sequence[Path], model: Model, vocab_size: int) -> Decoder:
    """The decoder whose weights are the mean of those in `files`, each in the folder of a checkpoint.

    Summed in float64, in order. Raises UserError where some do not fit the shape.
    """
    decoder = load_model(files[0].parent, model, vocab_size, files[0].name)
    if len(files) == 1:
        return decoder
    sums = {name: one.double() for name, one in decoder.state_dict().items()}
    for file in files[1:]:
        load_weights(decoder, file.parent, file.name)
        for name, one in decoder.state_dict().items():
            sums[name] += one
    decoder.load_state_dict({name: (total / len(files)).float() for name, total in sums.items()})
    return decoder


def load_weights(decoder: Decoder, folder: Path, file: str = WEIGHTS) -> None:
    """Copy a checkpoint's weights into `decoder`. Raises UserError where they do not fit its shape."""
    try:
        decoder.load_state_dict(load_file(folder / file))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder / file}: not the weights of model {decoder.config.name} ({first})") from None
