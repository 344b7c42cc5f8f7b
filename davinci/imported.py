"""What the store keeps of a model that was imported, beside its weights: ``imported/NAME/imported.json``.

``model.safetensors`` beside it has the weights by a decoder's names, float32; ``hf/`` the small files of the folder as
they were, the tokenizer among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from davinci.config import Frozen, Model, parse
from davinci.errors import UserError, nearest
from davinci.store import Store, file_digest, read_json

RECORD, WEIGHTS, SMALL_FILES, TOKENIZER = "imported.json", "model.safetensors", "hf", "tokenizer.json"
# Keys of a model that may be said anew when training goes on from its weights: they change no tensor's meaning.
FREE = (
    *("name", "precision", "rope_theta", "max_position_embeddings", "initializer_range", "pretrained"),
    "experts.balance",
)


class Imported(Frozen):
    """A model as it was found.

    Attributes:
        model: its shape.
        architecture: the class of transformers that it is of.
        dtypes: of each tensor, by the folder's names.
        digest: SHA-256 of the weights in the store.
        tokenizer_digest: of its ``tokenizer.json``; null where there was none.
        licence: as its README or LICENSE states it.
        source: the name of the folder it came from; null in older records.
    """

    model: Model
    architecture: str
    dtypes: Annotated[dict[str, str], Field(min_length=1)]
    digest: str
    tokenizer_digest: str | None
    licence: str | None
    source: str | None = None


def read(store: Store, name: str) -> Imported:
    """The record of an imported model. Raises UserError where there is none of that name, with the nearest."""
    path = store.imported(name) / RECORD
    if not path.is_file():
        known = sorted(one.name for one in path.parent.parent.glob("*") if (one / RECORD).is_file())
        raise UserError(
            f"model.pretrained.name: {store.root} has no imported model {name!r}{nearest(name, known)}; "
            f"python -m davinci import DIR --as {name} makes it"
        )
    return parse(Imported, read_json(path), lambda key: f"{path}:{key}")


def weights_of(model: Model, store: Store) -> Path | None:
    """The folder with the weights that training begins with; None where they are random.

    Raises:
        UserError: they are missing, or not those that the model names.
    """
    if model.pretrained is None:
        return None
    folder = store.imported(model.pretrained.name)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder / WEIGHTS}: missing; python -m davinci import DIR --as {model.pretrained.name} makes it"
        )
    found = file_digest(folder / WEIGHTS)
    if found != model.pretrained.digest:
        raise UserError(
            f"{folder / WEIGHTS}: is {found[:12]}, not {model.pretrained.digest[:12]} that the run begins with"
        )
    return folder
