"""Arithmetic questions with their steps, made by a seeded program (Darwin Level L5, synthetic).

Grades: 1 a drilled fact, the sum or difference of numbers up to 5, asked by somebody; 2 a product of one-digit numbers,
a two-digit and a one-digit number without carry, or two multiples of ten; 3 two two-digit numbers without carry, by
tens and ones; 4 the same with carry; 5 two operations on one-digit numbers; 6 a story with one or two operations.

Most questions are of grade 1: a model of a million parameters that reads a few hundred thousand tokens learns these
first. What is held out of grade 1 is a question (who asks what), so that a benchmark of it asks practised facts in
questions never seen; of the other grades a problem in all its wordings. `docs/negative_results.md` has the figures that
led here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, ClassVar

from davinci.config import Level, Positive
from davinci.data.documents import Document
from davinci.data.l5_completion.questions import asked
from davinci.data.operations import Places, Reader, operation
from davinci.data.tally import Tally

_WEIGHTS = {1: 80, 2: 7, 3: 4, 4: 3, 5: 3, 6: 3}
_LARGEST_FACT = 5
_OPERATION = {"+": ("plus", "add"), "-": ("minus", "subtract"), "*": ("times", "multiply")}
_NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Will",
]
_THINGS = [
    "apples",
    "books",
    "cards",
    "coins",
    "eggs",
    "flowers",
    "keys",
    "marbles",
    "nuts",
    "pencils",
    "shells",
    "stamps",
]

Problem = tuple[str, str, str]
"""Key of the problem, what is asked, and the answer with its steps."""


@operation("arithmetic")
class Arithmetic(Reader):
    """So many questions, made from a seed."""

    level: ClassVar[Level] = "L5"
    documents: Positive
    seed: int

    def parts(self, places: Places) -> list[dict[str, Any]]:
        return [{}]

    def read(self, part: Mapping[str, Any], places: Places, tally: Tally) -> Iterator[Document]:
        yield from arithmetic(self.documents, self.seed)

    def provenance(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"generator": f"{__name__}: {self.documents} documents, seed {self.seed}"}


def arithmetic(count: int, seed: int) -> Iterator[Document]:
    """`count` questions in random order, each with the key that decides whether it is held out."""
    random = Random(seed)
    grades = random.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()), k=count)
    for index, grade in enumerate(grades):
        key, question, answer = _MAKERS[grade](random)
        yield asked(f"{index:06d}", f"arithmetic {key}", question, answer, grade=grade)


def _value(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def _key(a: int, sign: str, b: int) -> str:
    return f"{a} {sign} {b}"


def _words(random: Random, a: int, sign: str, b: int) -> str:
    spoken, verb = _OPERATION[sign]
    kind = random.randrange(20)
    if kind < 16:
        return f"What is {a} {sign} {b}?"
    if kind < 19:
        return f"What is {a} {spoken} {b}?"
    if sign == "-":
        return f"What do you get if you {verb} {b} from {a}?"
    return f"What do you get if you {verb} {a} {'by' if sign == '*' else 'and'} {b}?"


def _one_step(random: Random, a: int, sign: str, b: int) -> Problem:
    return _key(a, sign, b), _words(random, a, sign, b), f"{a} {sign} {b} = {_value(a, sign, b)}."


def _grade_1(random: Random) -> Problem:
    name, sign = random.choice(_NAMES), random.choice("+-")
    a, b = random.randrange(_LARGEST_FACT + 1), random.randrange(_LARGEST_FACT + 1)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    question = f"{name} asks: {a} {sign} {b}?"
    return question, question, f"{_value(a, sign, b)}."


def _grade_2(random: Random) -> Problem:
    if random.randrange(3) == 0:
        return _one_step(random, random.randrange(10), "*", random.randrange(10))
    sign = random.choice("+-")
    if random.randrange(4) == 0:
        a, b = 10 * random.randrange(1, 10), 10 * random.randrange(1, 10)
        if sign == "-":
            a, b = max(a, b), min(a, b)
        elif a + b > 100:
            a, b = 100 - a, 100 - b
        return _one_step(random, a, sign, b)
    tens, one = 10 * random.randrange(1, 10), random.randrange(1, 10)
    other = random.randrange(1, 10 - one) if sign == "+" and one < 9 else random.randrange(0, one + 1)
    if sign == "+" and one == 9:
        other = 0
    return _one_step(random, tens + one, sign, other)


def _columns(random: Random, sign: str, carry: bool) -> tuple[int, int]:
    while True:
        a, b = random.randrange(11, 90), random.randrange(11, 90)
        if sign == "-" and a < b:
            a, b = b, a
        ones = _value(a % 10, sign, b % 10)
        if _value(a, sign, b) in range(1, 100) and (not 0 <= ones <= 9) == carry:
            return a, b


def _grade_3(random: Random) -> Problem:
    sign = random.choice("+-")
    a, b = _columns(random, sign, carry=False)
    tens, ones = _value(a // 10 * 10, sign, b // 10 * 10), _value(a % 10, sign, b % 10)
    steps = [f"{a % 10} {sign} {b % 10} = {ones}.", f"{a // 10 * 10} {sign} {b // 10 * 10} = {tens}."]
    return _key(a, sign, b), _words(random, a, sign, b), " ".join([*steps, f"{tens} + {ones} = {tens + ones}."])


def _grade_4(random: Random) -> Problem:
    sign = random.choice("+-")
    a, b = _columns(random, sign, carry=True)
    half = _value(a, sign, b // 10 * 10)
    steps = f"{a} {sign} {b // 10 * 10} = {half}. {half} {sign} {b % 10} = {_value(a, sign, b)}."
    return _key(a, sign, b), _words(random, a, sign, b), steps


def _grade_5(random: Random) -> Problem:
    a, b, c = (random.randrange(1, 10) for _ in range(3))
    first = random.choice("++*")
    half = _value(a, first, b)
    second = random.choice("+-") if half > c else "+"
    steps = f"{a} {first} {b} = {half}. {half} {second} {c} = {_value(half, second, c)}."
    return f"{a} {first} {b} {second} {c}", f"What is {a} {first} {b} {second} {c}?", steps


def _grade_6(random: Random) -> Problem:
    name, things = random.choice(_NAMES), random.choice(_THINGS)
    a, b, c = (random.randrange(2, 10) for _ in range(3))
    kind = random.randrange(4)
    if kind == 0:
        story = f"{name} has {a} {things} and gets {b} more."
        return _key(a, "+", b), f"{story} How many {things} does {name} have now?", f"{a} + {b} = {a + b}."
    if kind == 1:
        a += b
        story = f"{name} has {a} {things} and gives away {b}."
        return _key(a, "-", b), f"{story} How many {things} are left?", f"{a} - {b} = {a - b}."
    if kind == 2:
        story = f"{name} has {a} boxes with {b} {things} each."
        return _key(a, "*", b), f"{story} How many {things} is that?", f"{a} * {b} = {a * b}."
    story = f"{name} has {a} boxes with {b} {things} each and finds {c} more."
    steps = f"{a} * {b} = {a * b}. {a * b} + {c} = {a * b + c}."
    return f"{a} * {b} + {c}", f"{story} How many {things} is that?", steps


_MAKERS: dict[int, Callable[[Random], Problem]] = {
    1: _grade_1,
    2: _grade_2,
    3: _grade_3,
    4: _grade_4,
    5: _grade_5,
    6: _grade_6,
}
