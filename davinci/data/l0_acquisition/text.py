"""Bytes to text without loss."""

from __future__ import annotations


def decoded(content: bytes) -> tuple[str, dict[str, str | int]]:
    """UTF-8, or where it is not valid UTF-8 each byte as the Latin-1 character of its number, with ``bytes: 1`` for the
    document's origin: an operation of Level L1 finds out which encoding it is."""
    try:
        return content.decode("utf-8"), {}
    except UnicodeDecodeError:
        return content.decode("latin-1"), {"bytes": 1}
