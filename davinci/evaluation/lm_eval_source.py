"""Functions of lm-eval's task modules that cannot be imported here.

Those modules begin with a ``try`` that loads a metric from a hub, or a package that Hydra excludes (antlr4 4.11); what
follows it needs neither. It is read from the installed lm-eval, so that prompts and rules are lm-eval's own.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def definitions(path: str) -> Mapping[str, Any]:
    """What the module ``lm_eval/tasks/<path>`` defines, without the ``try`` statements at its top level."""
    spec = find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "tasks" / path
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [statement for statement in tree.body if not isinstance(statement, ast.Try)]
    found: dict[str, Any] = {"__name__": f"davinci.lm_eval_source.{file.parent.name}"}
    exec(compile(tree, str(file), "exec"), found)
    return found
