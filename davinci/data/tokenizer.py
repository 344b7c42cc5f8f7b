"""A pool's tokenizer: texts to token ids, and the bytes that each id stands for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from davinci.data.cards import TokenizerCard, TokenType
from davinci.data.ordered import together
from davinci.errors import UserError
from davinci.store import file_digest

END_OF_TEXT = "<|endoftext|>"
Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
# Kept of what was encoded last: the depths of a source share most of their documents.
_RECENT_TOKENS = 1 << 24
_BATCH_CHARACTERS = 4_000_000
# A text longer than this is encoded in pieces: an encoding takes some hundred bytes a token.
_LONG = 1_000_000
# Between a letter or digit and a blank or line break. Tokenizers that split a text into words split it there.
_SEAM = re.compile(r"(?<=[^\W_])(?=[ \n])")
_PROBES = ("a", "Zu 1", "été", "x's 42", " b\n", "\n\nc  d", "  e", "\n 7", " \n\n\nf", "語")


class Encoder:
    """A pool's tokenizer.

    Args:
        card: says how a text ends and how large the vocabulary is.
        folder: the pool's, which holds the card's file.

    Raises:
        UserError: the file is missing, no tokenizer, or not the one that the card means.
    """

    def __init__(self, card: TokenizerCard, folder: Path) -> None:
        self.path = folder / card.file
        self.card = card
        if not self.path.is_file():
            raise UserError(f"{self.path}: missing; build the pool again")
        if file_digest(self.path) != card.digest:
            raise UserError(
                f"{self.path}: SHA-256 {file_digest(self.path)[:12]}, but the pool's shards are of tokenizer "
                f"{card.digest[:12]}; put that one back, or build the pool again"
            )
        self._tokenizer = read_tokenizer(self.path)
        self._tokenizer.encode_special_tokens = True  # written in a text, the name of a mark is text
        self.dtype = np.dtype(token_dtype(card.vocab_size))
        self._recent: dict[bytes, Ids] = {}
        self._recent_tokens = 0

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, uint16[n] (uint32 where the vocabulary does not fit), without an end of text."""
        known = self._known([text for text in texts if len(text) <= _LONG])
        return [known[text] if len(text) <= _LONG else self._long(text) for text in texts]

    def decode(self, tokens: npt.NDArray[np.integer[Any]]) -> str:
        """The text of tokens, the end of text left out."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def _known(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The tokens of each text, by the text."""
        known: dict[str, Ids] = {}
        left: list[str] = []
        for text in dict.fromkeys(texts):
            before = self._recent.get(_digest(text))
            if before is None:
                left.append(text)
            else:
                known[text] = before
        for batch in together(left, len, _BATCH_CHARACTERS):
            known.update(self._encode(batch))
        return known

    def _long(self, text: str) -> Ids:
        """The tokens of a text that memory may hold once, but not once more in pieces."""
        pieces = self._pieces(text)
        found: list[npt.NDArray[Any]] = []
        while some := list(islice(pieces, _BATCH_CHARACTERS // _LONG)):
            known = self._known(some)
            found += [known[piece] for piece in some]
        return np.concatenate(found)

    def _encode(self, batch: list[str]) -> Iterator[tuple[str, Ids]]:
        encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            ids = np.array(encoding.ids, dtype=self.dtype)
            if self._recent_tokens + len(ids) > _RECENT_TOKENS:
                self._recent, self._recent_tokens = {}, 0
            self._recent[_digest(text)] = ids
            self._recent_tokens += len(ids)
            yield text, ids

    def _pieces(self, text: str) -> Iterator[str]:
        """A text, or what it is cut into at places that no token reaches across."""
        begin = 0
        while len(text) - begin > _LONG and self._splits_at_seams:
            seam = _SEAM.search(text, begin + _LONG // 2)
            if seam is None:
                break
            yield text[begin : seam.start()]
            begin = seam.start()
        yield text[begin:]

    @cached_property
    def _splits_at_seams(self) -> bool:
        """Whether what stands on both sides of a seam can be encoded apart, by trial.

        A tokenizer without a pre-tokenizer may join words, one that puts a blank before a text does so to each piece.
        """

        def ids(text: str) -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

        return self._tokenizer.pre_tokenizer is not None and all(
            ids(first + second) == ids(first) + ids(second)
            for first in _PROBES
            for second in _PROBES
            if _SEAM.search(first[-1] + second[0])
        )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a JSON file of the `tokenizers` library.

    Raises:
        UserError: it is none.
    """
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path}: no tokenizer of the tokenizers library ({str(error)[:120]})") from None


def token_dtype(vocab_size: int) -> TokenType:
    """What shards of a vocabulary are written in: ``uint16`` where every id fits, else ``uint32``."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def spelled(path: Path) -> list[bytes]:
    """The bytes of text that each token stands for, by id; none for tokens that mark something.

    Of a byte-level vocabulary (`byte_names`), or of SentencePiece's, in which ``▁`` is a blank and ``<0x0A>`` a byte.

    Raises:
        UserError: the vocabulary is of neither kind.
    """
    whole = json.loads(path.read_text(encoding="utf-8"))
    names = whole["model"].get("vocab")
    if isinstance(names, list):  # Unigram: [name, score]
        names = {name: index for index, (name, _) in enumerate(names)}
    marks = {one["id"]: one["content"] for one in whole["added_tokens"]}
    if not isinstance(names, dict):
        raise UserError(f"{path}: a tokenizer without a vocabulary; accepted are byte-level BPE and SentencePiece's")
    found = [b""] * (1 + max([*names.values(), *marks], default=-1))
    byte_of = {name: byte for byte, name in enumerate(byte_names())}
    is_byte_level = _names_bytes(whole["decoder"])
    if not is_byte_level and not any("▁" in name for name in names):
        raise UserError(f"{path}: its tokens do not say their bytes; accepted are byte-level BPE and SentencePiece's")
    for name, index in names.items():
        if is_byte_level:
            found[index] = bytes(byte_of[character] for character in name if character in byte_of)
        else:
            byte = re.fullmatch(r"<0x([0-9A-F]{2})>", name)
            found[index] = bytes.fromhex(byte[1]) if byte else name.replace("▁", " ").encode()
    for one in whole["added_tokens"]:
        found[one["id"]] = b"" if one["special"] else one["content"].encode()
    return found


def _names_bytes(decoder: dict[str, Any] | None) -> bool:
    steps = [decoder, *decoder.get("decoders", [])] if decoder else []
    return any(step["type"] == "ByteLevel" for step in steps)


def byte_names() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: printable ones themselves, the others the
    characters from 256 on in order (Radford et al. 2019, GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def token_bytes(path: Path) -> npt.NDArray[np.int64]:
    """How many bytes of text each token stands for, int64[vocab]; 0 for the end of text."""
    return np.array([len(one) for one in spelled(path)], dtype=np.int64)
