"""Where two resolved configs, or two maps, differ: leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel


class _Absent:
    """The other side of a key that only one config has."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


def differences(
    left: BaseModel | Mapping[str, Any], right: BaseModel | Mapping[str, Any], leave_out: frozenset[str] = frozenset()
) -> dict[str, tuple[Any, Any]]:
    """``{dotted key: (left, right)}`` for every leaf that differs; list items are keyed by their index.

    A key that one side lacks is `ABSENT` there. Equal stages in another order are a difference of their common key,
    since stages are trained in the order written. `leave_out` are top-level fields. Objects that both sides share are
    not looked into, which is what makes auditing thousands of arms cheap.
    """
    found: dict[str, tuple[Any, Any]] = {}
    lefts, rights = children(left) or {}, children(right) or {}
    for key in [*lefts, *(key for key in rights if key not in lefts)]:
        if key in leave_out:
            continue
        if key in lefts and key in rights:
            _compare(lefts[key], rights[key], key, found)
        else:
            _one_side((lefts if key in lefts else rights)[key], key, found, on_the_left=key in lefts)
    return found


def _compare(left: Any, right: Any, key: str, found: dict[str, tuple[Any, Any]]) -> None:
    if left is right:
        return
    lefts, rights = children(left), children(right)
    if lefts is None and rights is None:
        if left != right or type(left) is not type(right):
            found[key] = left, right
        return
    if lefts is None or rights is None:  # a leaf against a group of keys
        lefts, rights = lefts or {"": left}, rights or {"": right}
    for name, value in lefts.items():
        if name not in rights:
            _one_side(value, _below(key, name), found, on_the_left=True)
            continue
        other = rights[name]
        if value is other:
            continue
        if type(value) in _LEAVES and type(value) is type(other):
            if value != other:
                found[_below(key, name)] = value, other
        else:
            _compare(value, other, _below(key, name), found)
    for name, value in rights.items():
        if name not in lefts:
            _one_side(value, _below(key, name), found, on_the_left=False)
    if key == "curriculum.stages" and lefts.keys() == rights.keys() and list(lefts) != list(rights):
        found[key] = ", ".join(lefts), ", ".join(rights)


_LEAVES = frozenset({int, float, str, bool})


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if name != "" else key


def _one_side(value: Any, key: str, found: dict[str, tuple[Any, Any]], *, on_the_left: bool) -> None:
    for leaf, item in leaves(value, key):
        found[leaf] = (item, ABSENT) if on_the_left else (ABSENT, item)


def children(value: Any) -> Mapping[Any, Any] | None:
    """What is one level below `value`; None for a leaf."""
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return None


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """``(dotted key, leaf)`` for every leaf of `value`; an empty group is a leaf."""
    below = children(value)
    if not below:
        yield key, value
        return
    for name, item in below.items():
        yield from leaves(item, f"{key}.{name}" if key else str(name))
