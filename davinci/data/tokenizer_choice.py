"""A tokenizer that is not trained on the pool: Qwen2's, a file of the `tokenizers` library, a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from davinci.data.cards import TokenizerCard
from davinci.data.operations import Places
from davinci.data.qwen2 import PIN, write_qwen2
from davinci.data.tokenizer import END_OF_TEXT, read_tokenizer
from davinci.errors import UserError
from davinci.store import atomic_file, file_digest, read_json

FILE = "tokenizer.json"
QWEN2 = "qwen2"
# Where a file does not say which token ends a text, the first of these that it knows.
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<end_of_text>", "[SEP]")


def bring(choice: str, folder: Path, places: Places, log: Callable[[str], None], where: str) -> TokenizerCard:
    """Write the pool's ``tokenizer.json`` and return its card.

    Args:
        choice: ``qwen2``, a JSON file of the `tokenizers` library, or a folder that holds such a ``tokenizer.json`` and
            says in ``tokenizer_config.json`` which token ends a text.
        folder: the pool's.
        places: where package archives are, and what a relative path starts from.
        log: gets a line when something is downloaded.
        where: file and key of the choice, for messages.

    Raises:
        UserError: nothing of the kind is there, or no token ends a text.
    """
    target = folder / FILE
    if choice == QWEN2:
        write_qwen2(target, places.archives, log)
        return card_of(target, END_OF_TEXT, where)
    source, end = _found(choice, places.root, where)
    card = card_of(source, end, where)  # before the pool's is replaced
    content = source.read_bytes()
    with atomic_file(target) as temporary:
        temporary.write_bytes(content)
    return card.model_copy(update={"file": FILE})


def key_of(choice: str, places: Places, where: str) -> str:
    """What `bring` gives is a function of."""
    if choice == QWEN2:
        return f"{QWEN2} {PIN.sha256}"
    source, end = _found(choice, places.root, where)
    return f"{file_digest(source)} {end}"


def _found(choice: str, root: Path, where: str) -> tuple[Path, str | None]:
    """A tokenizer's file, and the token that ends a text where that is stated beside it."""
    path = root / Path(choice).expanduser()
    source = path / FILE if path.is_dir() else path
    if not source.is_file():
        what = f"folder {path} has no {FILE}" if path.is_dir() else f"{choice!r} is no file"
        raise UserError(
            f"{where}: {what}; accepted are {QWEN2}, a JSON file of the tokenizers library, and a folder with {FILE} "
            "(as transformers' fast tokenizers save it)"
        )
    read_tokenizer(source)
    return source, _stated_end(path) if path.is_dir() else None


def card_of(path: Path, end: str | None, where: str) -> TokenizerCard:
    """The card of a tokenizer's file; `end` is the token that ends a text, where that is stated."""
    tokenizer = read_tokenizer(path)
    return TokenizerCard(
        file=path.name,
        digest=file_digest(path),
        vocab_size=size_of(tokenizer),
        end_of_text=_id_of(tokenizer, end, where),
    )


def size_of(tokenizer: Tokenizer) -> int:
    """One more than the largest id: there may be gaps."""
    return 1 + int(max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1))


def _id_of(tokenizer: Tokenizer, end: str | None, where: str) -> int:
    for name in (end,) if end is not None else ENDS:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    if end is not None:
        raise UserError(f"{where}: tokenizer_config.json says that {end!r} ends a text, which is no token of {FILE}")
    raise UserError(
        f"{where}: no token of it is known to end a text ({', '.join(ENDS)}); give a folder whose "
        "tokenizer_config.json says eos_token"
    )


def _stated_end(folder: Path) -> str | None:
    """``eos_token`` of a Hugging Face tokenizer's folder."""
    path = folder / "tokenizer_config.json"
    said: Any = read_json(path).get("eos_token") if path.is_file() else None
    found = said.get("content") if isinstance(said, dict) else said
    return None if found is None else str(found)


def size_at(path: Path, where: str) -> int:
    """The vocabulary of a tokenizer's file or folder."""
    return size_of(read_tokenizer(_found(str(path), path.parent, where)[0]))
