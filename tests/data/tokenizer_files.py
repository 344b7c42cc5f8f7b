"""Small tokenizers for tests: bytes, or a vocabulary as large as is asked for."""

import functools
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from davinci.data.cards import TokenizerCard
from davinci.data.tokenizer_choice import card_of


def write_bytes_tokenizer(folder: Path, size: int = 257, end: str = "<|endoftext|>") -> TokenizerCard:
    """A token a byte, then tokens that stand for nothing, and the end of text as the last of `size`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_made(size, end), encoding="utf-8")
    if (size, end) not in _CARDS:
        _CARDS[size, end] = card_of(folder / "tokenizer.json", end, "test")
    return _CARDS[size, end]


_CARDS: dict[tuple[int, str], TokenizerCard] = {}


@functools.cache
def _made(size: int, end: str) -> str:
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: index for index, name in enumerate(names)}
    vocabulary |= {f"Ġ{index}": index for index in range(len(names), size - 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(end, special=True)])
    return str(tokenizer.to_str())
