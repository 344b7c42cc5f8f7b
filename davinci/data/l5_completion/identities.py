"""Results of algebra, checked by putting numbers in: the expression before and after must agree, exactly."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from fractions import Fraction

from davinci.data.l5_completion.steps import decimal, worked_out
from davinci.data.verification import NotArithmetic, node_value

# Functions (and methods without arguments) that give what they take in another form.
KEEP_THE_VALUE = frozenset(
    ("apart", "cancel", "collect", "expand", "factor", "horner", "ratsimp", "simplify", "together")
)
_POINTS = ((2, 3, 5, 7), (3, 5, 2, 11), (5, 2, 7, 3), (7, 11, 3, 2), (-3, 4, -2, 9))
_ENOUGH = 3
_SYMBOL = re.compile(r"[a-zA-Z]\d?")
_NO_SYMBOLS = frozenset("IENSOQC")  # names of SymPy's own


class Refuted(ValueError):
    """The two expressions differ at a point."""


def checked(source: str, result: str, known: Mapping[str, str]) -> str | None:
    """A sentence that checks `result` of `source` at a point, or None where nothing can be checked.

    Args:
        source: a call of one of `KEEP_THE_VALUE`, such as ``expand((x + 1)**2)``.
        result: what it gives.
        known: names to the expressions last assigned to them, put in where they stand.

    The two are polynomials or quotients of them in at most four symbols; they agree at three points or more, of which
    the first is shown (as Schwartz and Zippel: J. ACM 27(4), 1980, p. 701, different polynomials rarely do).

    Raises:
        Refuted: they differ at one.
    """
    try:
        before = _argument(ast.parse(source.strip(), mode="eval").body)
        after = ast.parse(result.strip(), mode="eval").body
        if before is None:
            return None
        before = _Put(known).visit(before)
        names = sorted({node.id for side in (before, after) for node in ast.walk(side) if isinstance(node, ast.Name)})
    except (SyntaxError, ValueError, RecursionError):
        return None
    if not names or len(names) > len(_POINTS[0]) or not all(map(_is_symbol, names)):
        return None
    texts = ast.unparse(before), ast.unparse(after)
    agreed: list[dict[str, Fraction]] = []
    for point in _POINTS:
        values = dict(zip(names, map(Fraction, point), strict=False))
        try:
            sides = [node_value(ast.parse(text, mode="eval").body, text, values) for text in texts]
        except NotArithmetic:
            continue
        if sides[0] != sides[1]:
            raise Refuted(f"{source} does not give {result} at {point}")
        agreed.append(values)
    return _sentence(texts, agreed[0]) if len(agreed) >= _ENOUGH and texts[0] != texts[1] else None


def _argument(call: ast.expr) -> ast.expr | None:
    match call:
        case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in KEEP_THE_VALUE:
            return first
        case ast.Call(func=ast.Attribute(value=first, attr=name), args=[]) if name in KEEP_THE_VALUE:
            return first
    return None


def _is_symbol(name: str) -> bool:
    return _SYMBOL.fullmatch(name) is not None and name not in _NO_SYMBOLS


def _sentence(texts: tuple[str, str], values: Mapping[str, Fraction]) -> str | None:
    numbers = {name: decimal(number) for name, number in values.items()}
    chains = []
    for text in texts:
        tree = _Put(numbers).visit(ast.parse(text, mode="eval").body)
        forms = worked_out(ast.unparse(tree))
        if forms is None:
            return None
        chains.append(" = ".join(forms))
    given = " and ".join(f"{name} = {number}" for name, number in numbers.items())
    return f"Check with {given}: {chains[0]}, and {chains[1]}. Both give the same value."


class _Put(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.parse(self._known[node.id], mode="eval").body if node.id in self._known else node
