"""A pseudo-random permutation that needs no table: any element of any epoch at once, from a key."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

_ROUNDS = 6
_MULTIPLIERS = tuple(np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9))


def permute(index: npt.NDArray[np.int64], size: int, key: str) -> npt.NDArray[np.int64]:
    """Map indices of ``range(size)`` to a permutation of it that `key` chooses, int64 of the same shape.

    A Feistel network of six rounds over the next power of four, walked until it lands inside (Black and Rogaway,
    "Ciphers with arbitrary finite domains", CT-RSA 2002). The round function is SplitMix64's mixer: good for shuffling,
    no secret.
    """
    if size == 1:
        return np.zeros_like(index)
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.frombuffer(hashlib.sha512(key.encode()).digest()[: 8 * _ROUNDS], dtype="<u8")
    result = index.astype(np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        value = result[outside]
        left, right = value >> half, value & mask
        for one in keys:
            left, right = right, left ^ (_mix(right ^ one) & mask)
        value = (left << half) | right
        result[outside] = value
        outside = outside[value >= np.uint64(size)]
    return result.astype(np.int64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))
