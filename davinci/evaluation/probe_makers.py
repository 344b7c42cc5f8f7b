"""Embedded probe items that are made from nothing but a seed: a maker a capability.

Wrong choices are of the right one's kind and, where they can be, of its length, so that neither tells it apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

# Context, right choice, wrong choices.
Question = tuple[str, str, Sequence[str]]
Maker = Callable[[Random], Question | None]


def _words(text: str) -> list[str]:
    return text.split()


LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
# Common and regular: in all but the smallest vocabularies a token each, which makes an item cheap.
WORDS = _words(
    "house king land year hand heart city head place power day word work door name book war letter table road "
    "tree star field river priest nation ship law street garden"
)
NAMES = _words("value count index total name width height left right first last size key item node path")
SINGULAR = _words("key boy teacher picture law nation book judge farmer letter officer machine report child")
PLURAL = [f"{noun}s" for noun in SINGULAR[:-1]] + ["children"]
WOMEN, MEN = _words("Mary Anna Susan Alice Helen Laura"), _words("John Peter David Robert James Henry")
CAPITALS = dict(
    pair.split("/")
    for pair in _words(
        "France/Paris Italy/Rome Spain/Madrid Germany/Berlin England/London Russia/Moscow Japan/Tokyo China/Beijing "
        "Egypt/Cairo Greece/Athens Poland/Warsaw Norway/Oslo Cuba/Havana Austria/Vienna Ireland/Dublin"
    )
)
OPPOSITES = dict(
    pair.split("/")
    for pair in _words(
        "hot/cold good/bad big/small old/new high/low long/short rich/poor strong/weak early/late open/closed "
        "true/false right/wrong light/dark war/peace life/death"
    )
)
MEMBERS = {
    "math": _words("sqrt floor ceil pi log"),
    "os": _words("path environ getcwd listdir"),
    "json": _words("loads dumps load dump"),
    "re": _words("compile match sub findall"),
    "datetime": _words("timedelta date timezone"),
    "collections": _words("OrderedDict defaultdict namedtuple deque"),
    "functools": _words("partial wraps lru_cache reduce"),
    "itertools": _words("chain islice product groupby"),
}


def _numbers(right: int, random: Random, steps: Sequence[int] = (1, 2, 3, 5, 7, 10, 20)) -> list[str] | None:
    """Three other numbers near `right` of as many digits."""
    near = sorted({right + sign * step for step in steps for sign in (1, -1)} - {right})
    alike = [number for number in near if number >= 0 and len(str(number)) == len(str(right))]
    return [f" {number}" for number in random.sample(alike, 3)] if len(alike) >= 3 else None


def _sum(random: Random, sign: str) -> Question | None:
    first, second = random.randint(2, 99), random.randint(2, 99)
    if sign == "-" and second > first:
        first, second = second, first
    if sign == "*":
        first, second = random.randint(2, 12), random.randint(2, 12)
    right = {"+": first + second, "-": first - second, "*": first * second}[sign]
    wrong = _numbers(right, random)
    form = random.choice(("{} {} {} =", "Answer: {} {} {} ="))
    return (
        None if wrong is None else (form.format(*(first, sign, second) * (form.count("{}") // 3)), f" {right}", wrong)
    )


def addition(random: Random) -> Question | None:
    return _sum(random, "+")


def subtraction(random: Random) -> Question | None:
    return _sum(random, "-")


def multiplication(random: Random) -> Question | None:
    return _sum(random, "*")


def comparison(random: Random) -> Question | None:
    first, second = random.sample(range(10, 100), 2)
    is_larger = random.random() < 0.5
    right = (max if is_larger else min)(first, second)
    word = random.choice(("larger", "greater") if is_larger else ("smaller", "less"))
    return f"Of {first} and {second}, the {word} number is", f" {right}", [f" {first + second - right}"]


def counting(random: Random) -> Question | None:
    step, length, start = random.choice((1, 1, 2, 5, 10)), random.randint(3, 5), random.randint(1, 80)
    numbers = [start + step * index for index in range(length + 1)]
    wrong = _numbers(numbers[-1], random, (1, 2, 3, 4, 10))
    comma = random.choice((",", ""))
    return None if wrong is None else (f"{comma} ".join(map(str, numbers[:-1])) + comma, f" {numbers[-1]}", wrong)


def sequences(random: Random) -> Question | None:
    """The next of the alphabet, of number words, days or months."""
    order: Sequence[str] = random.choice((LETTERS, NUMBERS, DAYS, MONTHS))
    length = random.randint(2, 4)
    start = random.randrange(len(order) - length)
    *before, right = order[start : start + length + 1]
    others = [one for one in order if one not in {right, *before}]
    if len(others) < 3:
        return None
    comma = random.choice((",", ""))
    return f"{comma} ".join(before) + comma, f" {right}", [f" {one}" for one in random.sample(others, 3)]


def brackets(random: Random) -> Question | None:
    """The bracket that closes the innermost one still open."""
    pairs = {"(": ")", "[": "]", "{": "}", "<": ">"}
    written: list[str] = []
    still: list[str] = []
    for _ in range(random.randint(2, 6)):
        if still and random.random() < 0.4:
            written.append(pairs[still.pop()])
        else:
            still.append(random.choice(list(pairs)))
            written.append(still[-1])
    if not still:
        return None
    right = pairs[still[-1]]
    return " ".join(written), f" {right}", [f" {one}" for one in pairs.values() if one != right]


def copying(random: Random) -> Question | None:
    """A list said again: its next word, after the first time or two."""
    words = random.sample(WORDS, random.randint(3, 5))
    said = random.randint(1, len(words) - 1)
    wrong = [word for word in words if word != words[said]]
    others = random.sample([word for word in WORDS if word not in words], 3)
    context = " ".join([*words, ".", *words, ".", *words[:said]])
    return context, f" {words[said]}", [f" {word}" for word in (wrong + others)[:3]]


def induction(random: Random) -> Question | None:
    """A … A B … A: what followed A before (arXiv 2209.11895)."""
    words = random.sample(WORDS, random.randint(5, 8))
    place = random.randrange(len(words) - 2)
    wrong = random.sample([word for word in words if word not in words[place : place + 2]], 3)
    return " ".join([*words, words[place]]), f" {words[place + 1]}", [f" {word}" for word in wrong]


def reversal(random: Random) -> Question | None:
    letters = random.sample(LETTERS, random.randint(3, 5))
    said = random.randint(1, len(letters) - 1)
    backward = letters[::-1]
    wrong = [one for one in LETTERS if one != backward[said]]
    context = f"{' '.join(letters)} backwards is {' '.join(backward[:said])}"
    return context, f" {backward[said]}", [f" {one}" for one in random.sample(wrong, 3)]


def spelling(random: Random) -> Question | None:
    word = random.choice(WORDS)
    said = random.randint(1, len(word) - 1)
    wrong = [letter for letter in LETTERS if letter != word[said]]
    context = f"The word {word} is spelled {' '.join(word[:said])}"
    return context, f" {word[said]}", [f" {one}" for one in random.sample(wrong, 3)]


def agreement(random: Random) -> Question | None:
    """Number of the verb, a noun of the other number in between (arXiv 1611.01368)."""
    index, other = random.sample(range(len(SINGULAR)), 2)
    is_plural = random.random() < 0.5
    subject, between = (PLURAL[index], SINGULAR[other]) if is_plural else (SINGULAR[index], PLURAL[other])
    link = random.choice(("near", "of", "behind", "with"))
    right, wrong = random.choice(((" is", " are"), (" was", " were"), (" has", " have")))
    if is_plural:
        right, wrong = wrong, right
    return f"The {subject} {link} the {between}", right, [wrong]


def reflexives(random: Random) -> Question | None:
    is_woman = random.random() < 0.5
    name = random.choice(WOMEN if is_woman else MEN)
    verb = random.choice(("saw", "hurt", "taught", "washed", "defended", "blamed"))
    forms = [" herself", " himself"] if is_woman else [" himself", " herself"]
    return f"Yesterday {name} {verb}", forms[0], [forms[1], " themselves"]


def syntax(random: Random) -> Question | None:
    """The kind of word that can stand here."""
    noun, other = random.sample(WORDS, 2)
    nouns, verbs = [f" {noun}", f" {other}"], [" went", " came", " said", " were"]
    return random.choice(
        (
            (f"He gave me the {other} and the", nouns[0], random.sample(verbs, 3)),
            (f"They went to the old {other} with a", nouns[0], random.sample(verbs, 3)),
            (f"The {noun} and the {other} will", " be", [" been", " is", " being"]),
            (f"The {noun} has", " been", [" be", " is", " are"]),
            (f"We want to see the {noun} and", " the", [" of", " than", " is"]),
            (f"There is a {noun} in the {other}, and it", " is", [" are", " am", " be"]),
        )
    )


def plurals(random: Random) -> Question | None:
    first, second = random.sample(WORDS, 2)
    if random.random() < 0.5:
        return f"one {first}, two {first}s; one {second}, two", f" {second}s", [f" {second}", f" {first}s", f" {first}"]
    return f"two {first}s, one {first}; two {second}s, one", f" {second}", [f" {second}s", f" {first}s", f" {first}"]


def opposites(random: Random) -> Question | None:
    shown, asked = random.sample(list(OPPOSITES), 2)
    wrong = random.sample([word for word in OPPOSITES.values() if word != OPPOSITES[asked]], 3)
    context = f"{shown} and {OPPOSITES[shown]}, {asked} and"
    return context, f" {OPPOSITES[asked]}", [f" {word}" for word in wrong]


def facts(random: Random) -> Question | None:
    """Capitals, and what Python's modules hold."""
    if random.random() < 0.4:
        country = random.choice(list(CAPITALS))
        wrong = random.sample([city for city in CAPITALS.values() if city != CAPITALS[country]], 3)
        form = random.choice(("The capital of {} is", "The capital city of {} is called"))
        return form.format(country), f" {CAPITALS[country]}", [f" {city}" for city in wrong]
    module = random.choice(list(MEMBERS))
    right = random.choice(MEMBERS[module])
    others = random.sample([one for one in MEMBERS if one != module], 3)
    return f"from {module} import", f" {right}", [f" {random.choice(MEMBERS[one])}" for one in others]


def code_syntax(random: Random) -> Question | None:
    """The token that Python's grammar asks for."""
    a, b, c = random.sample(NAMES, 3)
    return random.choice(
        (
            (f"if {a} == {b}", ":", [";", ",", "."]),
            (f"def get_{a}(self, {b})", ":", [";", ",", "."]),
            (f"for {a} in {b}", ":", [";", ",", " ="]),
            (f"for {a}", " in", [" if", " is", " as"]),
            (f"if {a} is", " not", [" if", " for", " def"]),
            (f"import {a} as {b}\nfrom {a}", " import", [" return", " def", " is"]),
            (f"try:\n    {a} = {b}\n", "except", ["return", "class", "lambda"]),
            (f"if {a}:\n    {b} = {c}\nel", "se", ["ve", "ly", "er"]),
            (f"{a} = {b}[{c}", "]", [")", "}", ":"]),
            (f"{a} = {b}({c}", ")", ["]", "}", ":"]),
            (f"class {a.title()}({b.title()}", "):", ["]:", "}:", ",:"]),
            (f'{a} = {{"{b}"', ":", [";", ")", "]"]),
        )
    )


def code_scope(random: Random) -> Question | None:
    """The argument that is not used yet, rather than a name from nowhere."""
    first, second, function, *wrong = random.sample(NAMES, 6)
    sign = random.choice(("+", "*", "-", "=="))
    return (
        f"def {function}({first}, {second}):\n    return {first} {sign}",
        f" {second}",
        [f" {one}" for one in wrong],
    )


MAKERS: dict[str, Maker] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "comparison": comparison,
    "counting": counting,
    "sequences": sequences,
    "brackets": brackets,
    "copying": copying,
    "induction": induction,
    "reversal": reversal,
    "spelling": spelling,
    "agreement": agreement,
    "reflexives": reflexives,
    "syntax": syntax,
    "plurals": plurals,
    "opposites": opposites,
    "facts": facts,
    "code syntax": code_syntax,
    "code scope": code_scope,
}


def questions(make: Maker, random: Random) -> Iterator[Question]:
    """Questions of a maker, each context and answer once, until it has no new ones."""
    seen: set[tuple[str, str]] = set()
    idle = 0
    while idle < 2000:
        found = make(random)
        idle += 1
        if found is not None and (found[0], found[1]) not in seen:
            seen.add((found[0], found[1]))
            idle = 0
            yield found


def first(make: Maker, random: Random, count: int) -> list[Question]:
    """Up to `count` questions."""
    return list(islice(questions(make, random), count))
