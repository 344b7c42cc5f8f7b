"""Plain data to objects; a mistake to one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
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
        return kind.model_validate_json(_encoded(data, where))
    except ValidationError as error:
        # An unknown key is usually the misspelling that makes another one missing: report it first.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        path = _path(first["loc"], data, first["type"] == "missing")
        key = ".".join(path) or kind.__name__
        message = first["msg"].removeprefix("Value error, ")
        is_whole = not path and first["type"] == "value_error"
        if is_whole:  # a check across keys begins with its key itself
            key = re.split(r"[^\w.]", message, maxsplit=1)[0]
        if first["type"] == "extra_forbidden":
            message = "unknown key" + nearest(path[-1], known_keys(kind, path[:-1]))
        elif first["type"] == "missing":
            message = "missing, and it has no default"
        elif first["type"] == "too_short":
            message = f"at least {first['ctx']['min_length']} is needed (got {json.dumps(first['input'])})"
        elif first["type"] != "value_error":
            message += f" (got {json.dumps(first['input'])})"
        if first["type"] == "literal_error":
            message += _near(first["input"], first["ctx"]["expected"])
        is_across = first["type"] == "value_error" and path
        place = _place(where, path, message, data) if is_across else where(key)
        prefix = f"{place}: " if place else ""
        raise UserError(prefix + (message if is_whole else f"{key}: {message}")) from None


def _encoded(data: Mapping[str, Any], where: Callable[[str], str]) -> str:
    """`data` as JSON; YAML says more than that: dates, sets, mappings within themselves."""
    try:
        return json.dumps(data)
    except (TypeError, ValueError, RecursionError):
        for key, value in data.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError):
                place = where(str(key))
                prefix = f"{place}: " if place else ""
                accepted = "text (dates in quotes), numbers, true, false, null, lists and mappings are accepted"
                raise UserError(f"{prefix}{key}: {accepted}") from None
        raise


# A key in a message, told from a word of it by what only keys have.
_KEY = re.compile(r"[a-z]+(?:[._][a-z_]+)+")


def _place(where: Callable[[str], str], path: Sequence[str], message: str, data: Any) -> str:
    """The place of the key at `path`, or, where what does not go together was set elsewhere, the places of the keys
    below it that `message` names."""
    for part in path:
        data = data[int(part)] if isinstance(data, list | tuple) else data[part]
    found = [name for name in dict.fromkeys(_KEY.findall(message)) if _holds(data, name.split("."))]
    places = list(dict.fromkeys(where(".".join([*path, name])) for name in found))
    whole = where(".".join(path))
    return whole if whole in places or not places else " and ".join(places)


def _holds(data: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _near(given: Any, expected: str) -> str:
    """``; nearest: a`` of the texts that are `expected`, where one comes close."""
    close = nearest(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else ""
    return close if close.startswith("; nearest") else ""


def _path(location: Sequence[int | str], data: Any, is_missing: bool) -> list[str]:
    """The keys of `location` that are in `data`: pydantic puts the names of a union's types between them."""
    path: list[str] = []
    for place, part in enumerate(location):
        keys = data if isinstance(data, Mapping) else range(len(data) if isinstance(data, list | tuple) else 0)
        if part in keys:
            data = data[part]
        elif not (is_missing and place == len(location) - 1):
            continue
        path.append(str(part))
    return path


def known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
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
