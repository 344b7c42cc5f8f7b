"""Arithmetic worked out step by step: one operation at a time, exactly."""

from __future__ import annotations

import ast
from fractions import Fraction

from davinci.data.verification import NotArithmetic, apply, node_value

MOST_STEPS = 8


def worked_out(expression: str) -> list[str] | None:
    """The forms an expression passes through, its value last: ``2 * 3 + 4`` gives ``[2 * 3 + 4, 6 + 4, 10]``.

    None where it is no arithmetic, has no operation, takes more than eight steps, or a value has no short decimal form.
    """
    try:
        tree: ast.expr = _numbers(ast.parse(expression.strip(), mode="eval").body, expression.strip())
        forms = [ast.unparse(tree)]
        while not _is_number(tree):
            tree = _reduce(tree)
            forms.append(ast.unparse(tree))
            if len(forms) > MOST_STEPS + 1:
                return None
    except (NotArithmetic, SyntaxError, ValueError, RecursionError):
        return None
    return forms if len(forms) > 1 else None


def decimal(number: Fraction) -> str:
    """A number as a decimal.

    Raises:
        NotArithmetic: it has none of at most six places.
    """
    if number.denominator == 1:
        return str(number.numerator)
    scaled = abs(number) * 10**6
    if scaled.denominator != 1:
        raise NotArithmetic(str(number))
    whole, places = divmod(int(scaled), 10**6)
    return ("-" if number < 0 else "") + f"{whole}.{places:06d}".rstrip("0")


def _numbers(node: ast.expr, source: str) -> ast.expr:
    """The tree with its numbers as names that show them: unparsing then writes them as we do."""
    match node:
        case ast.BinOp(left=left, op=sign, right=right):
            return ast.BinOp(_numbers(left, source), sign, _numbers(right, source))
        case ast.Constant() | ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            return _shown(node_value(node, source))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ast.UnaryOp(ast.USub(), _numbers(operand, source))
    raise NotArithmetic(source)


def _shown(number: Fraction) -> ast.expr:
    shown = ast.Name(decimal(abs(number)))
    return ast.UnaryOp(ast.USub(), shown) if number < 0 else shown


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Name))


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Name(id=written):
            return Fraction(written)
        case ast.UnaryOp(operand=ast.Name(id=written)):
            return -Fraction(written)
    raise NotArithmetic(ast.dump(node))


def _reduce(node: ast.expr) -> ast.expr:
    """The tree with its first operation between numbers done (left before right, inner before outer)."""
    match node:
        case ast.BinOp(left=left, op=sign, right=right):
            if not _is_number(left):
                return ast.BinOp(_reduce(left), sign, right)
            if not _is_number(right):
                return ast.BinOp(left, sign, _reduce(right))
            return _shown(apply(sign, _value(left), _value(right)))
        case ast.UnaryOp(operand=operand):
            if isinstance(operand, ast.UnaryOp) and _is_number(operand):
                return _shown(-_value(operand))
            return ast.UnaryOp(ast.USub(), _reduce(operand))
    raise NotArithmetic(ast.dump(node))
