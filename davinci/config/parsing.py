"""Plain data to objects; a mistake to one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from davinci.errors import UserError, nearest

Object = TypeVar("Object", bound=BaseModel)


def parse(kind: type[Object], data: Mapping[str, Any], where: Callable[[str], str] = lambda key: "") -> Object:
    """Validate plain data into `kind`.

    Args:
        kind: the class to build.
        data: plain JSON-like data (dicts, lists, strings, numbers, booleans, None).
        where: maps a dotted key to the place it was set (a file, the command line), for the message.

    Raises:
        UserError: naming the first wrong key, its place, what is accepted and the nearest known key.
    """
    try:
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        # An unknown key is usually the misspelling that makes another one missing: report it first.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        path = [str(part) for part in first["loc"]]
        key = ".".join(path) or kind.__name__
        message = first["msg"].removeprefix("Value error, ")
        if not path and first["type"] == "value_error":  # a check across keys names its key itself
            key, _, message = message.partition(": ")
        if first["type"] == "extra_forbidden":
            message = "unknown key" + nearest(path[-1], _known_keys(kind, path[:-1]))
        elif first["type"] == "missing":
            message = "missing, and it has no default"
        elif first["type"] == "too_short":
            message = f"at least {first['ctx']['min_length']} is needed (got {json.dumps(first['input'])})"
        elif first["type"] != "value_error":
            message += f" (got {json.dumps(first['input'])})"
        place = where(key)
        prefix = f"{place}: " if place else ""
        raise UserError(f"{prefix}{key}: {message}") from None


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the model found by following `path` from `kind`."""
    current: Any = kind
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        current = _model_inside(current)
    current = _model_inside(current)
    return list(current.model_fields) if current is not None else []


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    """The first model class in a type such as ``dict[str, Stage]`` or ``tuple[BatchStep, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_inside(argument)
        if found is not None:
            return found
    return None
