"""V(x): whether what a text states can be checked and holds. Nothing here asks a model.

Two kinds of statement can be checked: equalities of numbers (exactly, by rational arithmetic) and interpreter sessions
(by running them in the sandbox). Used by completion (L5), which keeps only answers that pass, and by items validated by
execution (L7).
"""

from __future__ import annotations

import ast
import doctest
import itertools
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType

from davinci import sandbox

LARGEST = 10**24
MOST_DIGITS = 30
_FENCED = re.compile(r"```(?:python|py|pycon)?\n(.*?)```", re.DOTALL)
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_FINAL = re.compile(
    rf"(?:answer(?:\s+is)?|####|\\boxed\{{)\s*:?\s*\**\s*\$?({_NUMBER})(?!,?\d|\.\d|\s*[-+*/=×÷^(])", re.IGNORECASE
)


class NotArithmetic(ValueError):
    """An expression that is not made of numbers and their operations, or too large to work out."""


def value(expression: str) -> Fraction:
    """The exact value of an expression of decimal numbers, parentheses and ``+ - * / // % **``.

    Raises:
        NotArithmetic: it is something else, divides by zero, or is beyond 10^24.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NotArithmetic(expression) from None
    return node_value(tree.body, expression)


def node_value(node: ast.expr, source: str, names: Mapping[str, Fraction] = MappingProxyType({})) -> Fraction:
    """`value` of a part of a parsed expression.

    `source` is the whole, for the numbers as they are written; `names` are values of the names that may stand in it.
    """
    match node:
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            written = (ast.get_source_segment(source, node) or repr(node.value)).replace("_", "")
            if len(written) > MOST_DIGITS or not re.fullmatch(r"\d+(\.\d*)?|\.\d+", written):
                raise NotArithmetic(source)
            return Fraction(written)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            found = node_value(operand, source, names)
            return -found if isinstance(node.op, ast.USub) else found
        case ast.BinOp(left=left, op=sign, right=right):
            return apply(sign, node_value(left, source, names), node_value(right, source, names))
    raise NotArithmetic(source)


def apply(sign: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    """One operation, exactly.

    Raises:
        NotArithmetic: not one of ours, division by zero, a power that is no rational number, or beyond 10^24.
    """
    try:
        match sign:
            case ast.Add():
                result = left + right
            case ast.Sub():
                result = left - right
            case ast.Mult():
                result = left * right
            case ast.Div():
                result = left / right
            case ast.FloorDiv():
                result = Fraction(left // right)
            case ast.Mod():
                result = left % right
            case ast.Pow() if right.denominator == 1 and abs(right) <= 64:
                result = left ** int(right)
            case _:
                raise NotArithmetic(ast.dump(sign))
    except ZeroDivisionError:
        raise NotArithmetic("division by zero") from None
    if max(abs(result.numerator), result.denominator) > LARGEST:
        raise NotArithmetic("too large")
    return result


def equalities(text: str) -> Iterator[tuple[str, str]]:
    """The equalities between numbers that a text states, as pairs of neighbours: ``2 * 3 + 4 = 6 + 4 = 10`` has two."""
    for line in re.split(r"\n|(?<=[\w)])[.;,](?=\s|$)", text):
        parts = [_side(part, place) for place, part in enumerate(line.split("="))]
        if len(parts) > 1 and not re.search(r"[<>!:=]=|=[=>]", line):
            for left, right in itertools.pairwise(parts):
                if left[1] and right[0]:
                    yield left[1], right[0]


def _side(part: str, place: int) -> tuple[str, str]:
    """The expression that a part between equality signs begins with, and the one it ends with ("" where there is
    none)."""
    plain = part.replace("×", "*").replace("÷", "/").replace("−", "-").replace("^", "**").replace("$", " ").strip()
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    begins = re.match(r"[-+*/%().\d\s]+(?![\w])", plain)
    ends = re.search(r"(?<![\w.*/+%-])[-(\d][-+*/%().\d\s]*$", plain)
    return (begins[0].strip() if begins and place else ""), (ends[0].strip() if ends else "")


def arithmetic_fault(text: str, least: int = 1) -> str | None:
    """Why the arithmetic of a text does not pass, or None: fewer than `least` equalities, or one that does not hold.

    An equality holds where both sides are equal as rational numbers; a side that is no arithmetic is passed over.
    """
    checked = 0
    for left, right in equalities(text):
        try:
            sides = value(left), value(right)
        except NotArithmetic:
            continue
        if sides[0] != sides[1]:
            return "an equality does not hold"
        checked += 1
    return None if checked >= least else "nothing to check"


def final_number(text: str) -> Fraction | None:
    """The number that a text gives as its answer (``Answer: 12``, ``#### 12``, a LaTeX box), the last one there is."""
    found = _FINAL.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def sessions(text: str) -> list[str]:
    """The Python of a text that can be run: fenced blocks, else the text itself where it holds interpreter examples."""
    blocks = [block for block in _FENCED.findall(text) if block.strip()]
    return blocks or ([text] if ">>> " in text else [])


def runs_as_written(
    text: str,
    *,
    setting: str,
    seconds: float = sandbox.SECONDS,
    isolation: sandbox.Isolation = "isolated",
    least: int = 1,
) -> str | None:
    """Run a text's sessions in the sandbox, a process each; why they do not pass, or None.

    A block with ``>>>`` passes if at least `least` examples state an output and every example gives what it states
    (as doctest compares them, white space aside); any other block passes if it runs to its end (its assertions are the
    check) and holds an assertion.

    Raises:
        UserError: programs cannot be confined on this machine; `setting` names the key that allows it all the same.
    """
    blocks = sessions(text)
    if not blocks:
        return "nothing to run"
    programs = []
    for block in blocks:
        if ">>>" in block:
            try:
                examples = doctest.DocTestParser().get_examples(block)
            except ValueError:
                return "no valid session"
            if sum(bool(one.want) for one in examples) < least:
                return "nothing to check"
            programs.append(_SESSION.format(text=block))
        elif re.search(r"^\s*assert\b", block, re.MULTILINE):
            programs.append(block)
        else:
            return "nothing to check"
    for program in programs:
        outcome = sandbox.run(program, isolation, seconds=seconds, setting=setting)
        if outcome.kind != "passed":
            return f"run: {outcome.kind}"
    return None


_SESSION = """\
import doctest
test = doctest.DocTestParser().get_doctest({text!r}, {{}}, "document", None, 0)
flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
result = doctest.DocTestRunner(optionflags=flags).run(test, out=lambda said: None)
assert result.attempted and not result.failed
"""
