"""A built pool small enough to write in a test: four domains of tokens with a rhythm a model can learn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from davinci.store import Store, file_digest, write_json

POOL = "tiny"
# 256 bytes and the end of text.
VOCAB_SIZE = 257
# Source -> domain, and whether its documents begin with a question.
SOURCES = {"prose": ("general", False), "python": ("code", False), "maths": ("science", False), "pairs": ("qa", True)}
DEPTH = "L1"
QUESTION_TOKENS = 12


def tiny_pool(store: Store, tokens: int = 20_000) -> Path:
    """Write pool ``tiny`` with about `tokens` training tokens a source; return its folder. Same bytes every time."""
    folder = store.pool(POOL)
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    cards = {}
    for index, (source, (domain, has_questions)) in enumerate(SOURCES.items()):
        variant = folder / f"{source}@{DEPTH}"
        card: dict[str, object] = {"chain": [{"level": DEPTH, "operation": "generated"}]}
        for split, prefix, size in (("train", "", tokens), ("heldout", "heldout_", tokens // 4)):
            card |= _write_split(variant, split, prefix, size, index, has_questions)
        card["digest"] = _digest(variant)
        cards[source] = {"domain": domain, "licence": {}, "archive": {}, "variants": {DEPTH: card}}
    tokenizer = folder / "tokenizer.json"
    write_json(
        folder / "card.json",
        {
            "name": POOL,
            "tokenizer": {"file": tokenizer.name, "digest": file_digest(tokenizer), "vocab_size": VOCAB_SIZE},
            "sources": cards,
        },
    )
    return folder


def _write_split(
    folder: Path, split: str, prefix: str, tokens: int, source: int, has_questions: bool
) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng([source, split == "train"])
    documents, starts, questions, total = [], [], [], 0
    while total < tokens:
        length = int(generator.integers(40, 200))
        # Letters of the source's own stretch of the alphabet, each likely to follow the one before it.
        steps = generator.choice([1, 2, 7], size=length, p=[0.8, 0.1, 0.1])
        document = np.append(66 + 26 * source + np.cumsum(steps) % 26, 0).astype("<u2")
        starts.append(total)
        documents.append(document)
        questions.append((np.arange(length + 1) < QUESTION_TOKENS).astype(np.uint8))
        total += length + 1
    stream = np.concatenate(documents)
    stream.tofile(folder / f"{split}.bin")
    np.save(folder / f"{split}.index.npy", np.array(starts, dtype="<u8"))
    if has_questions:
        np.concatenate(questions).tofile(folder / f"{split}.question.bin")
    if split == "heldout":
        tokenizer = _tokenizer()
        with (folder / "heldout.jsonl").open("w", encoding="utf-8") as file:
            for number, document in enumerate(documents):
                text = tokenizer.decode(document[:-1].tolist())
                file.write(json.dumps({"id": f"{folder.name}/{number}", "text": text}) + "\n")
    return {f"{prefix}tokens": total, f"{prefix}documents": len(documents), f"{prefix}bytes": total - len(documents)}


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([], trainer)
    return tokenizer


def _digest(folder: Path) -> str:
    parts = [f"{file_digest(path)} {path.name}\n" for path in sorted(folder.iterdir())]
    return hashlib.sha256("".join(parts).encode()).hexdigest()
