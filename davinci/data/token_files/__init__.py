"""Tokens that another program wrote, as a source of a pool.

A source says at which depth it has them, and in which format::

    sources:
      web:
        domain: general
        depths: [L2]
        tokens_from:
          L2: {megatron: {prefix: corpus/web_text_document}}

`FORMATS` are the formats. Flat ones are read where they lie, without a copy; others are converted, streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from davinci.config import parse
from davinci.data.token_files.flat import Flat
from davinci.data.token_files.given import TokenFiles
from davinci.data.token_files.megatron import Megatron
from davinci.data.token_files.rows import HuggingFace, LitData, Mds
from davinci.errors import UserError, nearest

FORMATS: dict[str, type[TokenFiles]] = {
    "megatron": Megatron,
    "flat": Flat,
    "huggingface": HuggingFace,
    "litdata": LitData,
    "mds": Mds,
}


def read_tokens_from(said: Mapping[str, Any], where: str) -> TokenFiles:
    """What a pool file says of tokens: a format's name and its parameters.

    Args:
        said: a one-key mapping.
        where: file and key, for messages.

    Raises:
        UserError: unknown format or parameter.
    """
    if not isinstance(said, Mapping) or len(said) != 1:
        raise UserError(f"{where}: {said!r} is not one format; accepted is {{FORMAT: {{parameter: value}}}}")
    ((name, parameters),) = said.items()
    if name not in FORMATS:
        raise UserError(f"{where}: unknown format {name!r}" + nearest(str(name), FORMATS))
    return parse(FORMATS[name], parameters or {}, lambda key: f"{where}.{name}")
