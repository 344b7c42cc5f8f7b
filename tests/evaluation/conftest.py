"""A small fabricated pool with held-out documents in four domains, its tokenizer, and a random model's checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from davinci.config import Model, Node
from davinci.evaluation import embedded
from davinci.model.decoder import Decoder
from davinci.store import Store, file_digest, write_json
from davinci.training import checkpoints

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(random: Random) -> list[str]:
    return ["".join(random.choices(LETTERS, k=random.randint(4, 7))) for _ in range(300)]


SMALL = [
    "of",
    "to",
    "in",
    "is",
    "it",
    "as",
    "by",
    "be",
    "the",
    "and",
    "for",
    "not",
    "are",
    "was",
    "that",
    "with",
    "this",
    "from",
    "have",
    "they",
]


def prose(random: Random, vocabulary: list[str]) -> str:
    """Two paragraphs of six sentences, every third or so word a small one."""
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    sentences = []
    for _ in range(12):
        words = random.choices(vocabulary, weights, k=random.randint(9, 16))
        words[1:-1] = [random.choice(SMALL) if random.random() < 0.4 else word for word in words[1:-1]]
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences[:6]) + "\n\n" + " ".join(sentences[6:])


def technical(random: Random, vocabulary: list[str]) -> str:
    """Prose, and an interpreter's session."""
    lines = []
    for _ in range(8):
        name, function, other = random.sample(vocabulary, 3)
        one, two, three = random.sample("+-*/%:,=<", 3)
        lines += [
            f">>> {name} {one} {function}({other}{two}{random.randint(10, 99)})",
            f">>> {other}[{random.randint(2, 9)}] {three} {name}{two}{random.randint(2, 9)}",
            f"{function}({name} {two} {random.randint(2, 9)}{one}{other})",
        ]
    return prose(random, vocabulary) + "\n\n" + "\n".join(lines)


def python(random: Random, vocabulary: list[str]) -> str:
    lines = []
    for _ in range(6):
        name, argument, other = random.sample(vocabulary, 3)
        function = [
            f"def {name}({argument}, {other}=None):",
            f"    {other} = {name}.{argument}({random.randint(10, 99)})",
            f"    if {argument} == {random.choice(vocabulary)}:",
            f"        return {other} + {argument} * {random.choice(vocabulary)}",
            f"        for {random.choice(vocabulary)} in {argument}:",
            f"            while {other} is not {argument}:",
            f"                {other} = {random.choice(vocabulary)}",
            f"            {argument} = {random.choice(vocabulary)}({other})",
            f"    return {name}({other}, {random.choice(vocabulary)})",
            "",
        ]
        deeper = " " * random.choice((0, 4, 8))
        lines += [deeper + line if line else "" for line in function]
    return "\n".join(lines)


def sums(random: Random, index: int) -> dict[str, object]:
    first, second = random.randint(10, 99), random.randint(index % 90 + 1, 99)
    question = f"What is {first} plus {second}? ({index})"
    answer = f"{first} + {second} = {first + second}."
    text = f"Question: {question}\nAnswer: {answer}\n"
    grade = (1, 1, 2, 1, 1, 6, 3)[index % 7]
    return {"id": f"sum-{index}", "text": text, "question": question, "answer": answer, "grade": grade}


@pytest.fixture(scope="session")
def built_pool(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store holding pool ``embedded``; tests that change files must copy it."""
    store = Store(tmp_path_factory.mktemp("store"))
    random = Random(7)
    vocabulary = words(random)
    makers = {"novels": prose, "manuals": technical, "scripts": python}

    def some(prefix: str, count: int) -> dict[str, list[dict[str, object]]]:
        return {
            name: [{"id": f"{prefix}{name[0]}{i}", "text": maker(random, vocabulary)} for i in range(count)]
            for name, maker in makers.items()
        }

    heldout = {**some("", 60), "sums": [sums(random, index) for index in range(560)]}
    train = {**some("train-", 20), "sums": [sums(random, index) for index in range(1000, 1100)]}
    domains = {"novels": "general", "manuals": "science", "scripts": "code", "sums": "qa"}
    pool = store.pool("embedded")
    pool.mkdir(parents=True)
    train_tokenizer([str(row["text"]) for rows in heldout.values() for row in rows], pool / "tokenizer.json")
    sources = {}
    for name, rows in heldout.items():
        path = pool / f"{name}@L3" / "heldout.jsonl"
        path.parent.mkdir()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        tokens = write_train(pool, f"{name}@L3", [str(row["text"]) for row in train[name]])
        variant = {
            "digest": file_digest(path), "tokens": tokens, "documents": 1, "bytes": 1, "heldout_tokens": 1,
            "heldout_documents": len(rows), "heldout_bytes": 1, "chain": [],
        }  # fmt: skip
        sources[name] = {"domain": domains[name], "licence": {}, "archive": {}, "variants": {"L3": variant}}
    tokenizer = {"file": "tokenizer.json", "digest": file_digest(pool / "tokenizer.json"), "vocab_size": 512}
    write_json(pool / "card.json", {"name": "embedded", "tokenizer": tokenizer, "sources": sources})
    return store


def write_train(pool: Path, variant: str, texts: list[str]) -> int:
    """The training split of a variant of the pool: documents' tokens, each ended by token 0; how many they are."""
    tokenizer = Tokenizer.from_file(str(pool / "tokenizer.json"))
    tokens = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
    np.array(tokens, dtype="<u2").tofile(pool / variant / "train.bin")
    return len(tokens)


def train_tokenizer(texts: list[str], path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """A random decoder's shape with room for 64 tokens."""
    return Model(
        name="test", layers=2, hidden_size=32, attention_heads=4, kv_heads=2, head_dim=8, mlp_intermediate_size=48,
        vocab_size=512, max_position_embeddings=64, rope_theta=10000.0, norm_eps=1e-6, qkv_bias=True,
        tie_embeddings=True, initializer_range=0.2, precision="float32",
    )  # fmt: skip


@pytest.fixture(scope="session")
def node(tiny_model: Model) -> Node:
    """Only what evaluation reads of a node."""
    return Node.model_construct(
        id="test-1234", model=tiny_model, pool="embedded", vocab_size=512, tokenizer_digest=None, end_of_text=0
    )


@pytest.fixture
def store(built_pool: Store, tmp_path: Path) -> Store:
    copy = Store(tmp_path)
    embedded.make_tasks(built_pool, "embedded")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"))
    return copy


@pytest.fixture
def save(store: Store, node: Node, tiny_model: Model) -> Callable[[int], Path]:
    """Writes a checkpoint of random weights and returns its folder."""

    def write(seed: int) -> Path:
        torch.set_num_threads(1)
        model = Decoder(tiny_model, 512)
        model.initialise(seed)
        folder = store.checkpoint(node.id, 640 + seed)
        state = checkpoints.State(
            version=checkpoints.VERSION, node=node.id, tokens=640 + seed, global_step=5, cursors={}, window={},
            rolling=False, numerics={}, digests={},
        )  # fmt: skip
        checkpoints.write(folder, model, {"step": torch.zeros(1)}, state)
        return folder

    return write
