"""Docstrings and doctests of Python source, read from its syntax tree: nothing is imported or run."""

from __future__ import annotations

import ast
import inspect
import warnings
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Docstring:
    """The documentation of one module, class or function.

    `name` is its dotted name from the package on; `call` the name with its parameters if it is a function, empty for a
    module; `text` is cleaned of its indentation.
    """

    name: str
    call: str
    text: str


def docstrings(path: str, source: str) -> list[Docstring]:
    """All docstrings of a file, in its order; none if it does not parse. `path` starts with the package's folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old docstrings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    found: list[Docstring] = []
    _visit(tree, module, found)
    return found


def _visit(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, found: list[Docstring]
) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        found.append(Docstring(name, _call(node, name), inspect.cleandoc(first.value.value)))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # what is defined inside a function is nobody's interface
    for child in node.body:
        # mpmath keeps its functions' documentation in one module, as strings assigned to their names.
        match child:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=str(text))) if ">>>" in text:
                found.append(Docstring(f"{name}.{target}", f"{name}.{target}", inspect.cleandoc(text)))
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _visit(child, f"{name}.{child.name}", found)


def _call(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        return name
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    parameters = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
    if node.args.vararg:
        parameters.append(f"*{node.args.vararg.arg}")
    parameters += [one.arg for one in node.args.kwonlyargs]
    if node.args.kwarg:
        parameters.append(f"**{node.args.kwarg.arg}")
    return f"{name}({', '.join(one for one in parameters if one not in ('self', 'cls'))})"
