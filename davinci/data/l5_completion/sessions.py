"""Interpreter sessions read as derivations: what each result rests on, said in a sentence."""

from __future__ import annotations

import ast
import doctest
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST_SOURCE = 100
LONGEST_RESULT = 80
LONGEST_GROUNDS = 200
_UNSTEADY = re.compile(r"Traceback|\.\.\.|<[^<>]* at 0x|#\s*doctest")
# Methods that change what they are called on, even where they give something back.
_CHANGES = re.compile(r"add|append|apply|clear|del|extend|insert|pop|put|remove|set|update")
_SILENT = frozenset(("print", "pprint", "nprint"))  # what they print is not what they give


@dataclass(frozen=True)
class Result:
    """An expression of a session, what it gives, and the statements it rests on, oldest first."""

    source: str
    result: str
    grounds: tuple[str, ...]
    known: dict[str, str] = field(default_factory=dict)
    """Names in `source` to the expressions last assigned to them, where nothing happened to them since."""

    @property
    def sentence(self) -> str:
        given = f"After {'; '.join(self.grounds)}, " if self.grounds else ""
        return f"{given}{self.source} gives {self.result}."


def results(text: str) -> Iterator[Result]:
    """The results of the sessions of a text that can be said in a sentence.

    A result rests on the last assignment of each name in it, on what that rests on, and on whatever was done with those
    names since (a method called, an item set). Results that rest on a loop, a definition or anything else of several
    lines are left out: so much does not fit into a sentence.
    """
    try:
        examples = doctest.DocTestParser().get_examples(text)
    except ValueError:
        return
    history: dict[str, list[int] | None] = {}  # name -> statements that made it what it is; None: cannot be said
    lines: list[str] = []
    for example in examples:
        source = re.sub(r"\s+#.*", "", example.source).strip()
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError, RecursionError):
            continue
        lines.append(source)
        simple = "\n" not in source and len(body) == 1 and not isinstance(body[0], ast.For | ast.While | ast.With)
        if example.want and simple and isinstance(body[0], ast.Expr):
            result = example.want.strip()
            grounds = _grounds(body[0], history)
            if grounds is not None and _can_be_said(body[0].value, example.source, result):
                said = tuple(lines[place] for place in grounds)
                if sum(map(len, said)) <= LONGEST_GROUNDS:
                    yield Result(source, result, said, _known(body[0], history, lines))
        for statement in body:
            _follow(statement, len(lines) - 1, history, simple, bool(example.want))


def supported(text: str, result: Result) -> bool:
    """V(x) of a `Result`, apart from how it was found: the session has its lines in that order, the result stands where
    the expression does, and nothing in between assigns to a name of the expression."""
    examples = doctest.DocTestParser().get_examples(text)
    sources = [re.sub(r"\s+#.*", "", example.source).strip() for example in examples]
    for place, example in enumerate(examples):
        if sources[place] != result.source or example.want.strip() != result.result:
            continue
        start = 0
        try:
            for ground in result.grounds:
                start = sources.index(ground, start, place) + 1
        except ValueError:
            continue
        last = {
            name: max(
                (index for index in range(place) if name in _assigned(sources[index])),
                default=-1,
            )
            for name in _names(result.source)
        }
        if all(index < 0 or _is_import(sources[index]) or sources[index] in result.grounds for index in last.values()):
            return True
    return False


def _grounds(node: ast.AST, history: dict[str, list[int] | None]) -> list[int] | None:
    """The statements that the names of `node` rest on, in order; None where one of them cannot be said."""
    found: set[int] = set()
    for name in _names_of(node):
        made = history.get(name, [])
        if made is None:
            return None
        found.update(made)
    return sorted(found)


def _follow(statement: ast.stmt, place: int, history: dict[str, list[int] | None], simple: bool, gives: bool) -> None:
    """Note what a statement does to the names in it; `gives` says that it has a result to show."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            for alias in statement.names:
                history[alias.asname or alias.name.partition(".")[0]] = []
        case ast.Assign(targets=targets, value=value):
            grounds = _grounds(value, history) if simple else None
            for target in targets:
                for name in _names_of(target):
                    if isinstance(target, ast.Name | ast.Tuple):
                        history[name] = None if grounds is None else sorted({*grounds, place})
                    else:  # an item or an attribute of it
                        _add(history, name, place if simple else None)
        case ast.Expr(value=value):
            for node in ast.walk(value):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and (not gives or _CHANGES.match(node.func.attr))
                ):
                    for name in _names_of(node.func.value):
                        if history.get(name):  # something made here, not a module
                            _add(history, name, place if simple else None)
        case _:
            for name in _names_of(statement):
                history[name] = None


def _add(history: dict[str, list[int] | None], name: str, place: int | None) -> None:
    made = history.get(name, [])
    history[name] = None if made is None or place is None else sorted({*made, place})


def _can_be_said(value: ast.expr, source: str, result: str) -> bool:
    called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    return (
        not isinstance(value, ast.Constant)
        and called not in _SILENT
        and "\n" not in result
        and len(source) <= LONGEST_SOURCE
        and len(result) <= LONGEST_RESULT
        and not _UNSTEADY.search(source + result)
    )


def _known(node: ast.AST, history: dict[str, list[int] | None], lines: list[str]) -> dict[str, str]:
    """The names in `node` whose last statement assigns one expression to them, and what."""
    known = {}
    for name in _names_of(node):
        made = history.get(name)
        if made and (match := re.fullmatch(rf"{re.escape(name)}\s*=\s*([^=].*)", lines[made[-1]])):
            known[name] = match[1]
    return known


def _names_of(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _names(source: str) -> set[str]:
    return _names_of(ast.parse(source))


@functools.lru_cache(maxsize=4096)
def _assigned(source: str) -> frozenset[str]:
    """The names that a statement binds."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return frozenset(bound) | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _is_import(source: str) -> bool:
    return source.startswith(("import ", "from "))
