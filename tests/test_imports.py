"""Imports point one way, and planning stays light."""

import ast
import subprocess
import sys

# What each package of davinci may import of the others.
ALLOWED = {
    "commands": {"composition", "launching", "planning", "tracking", "data", "evaluation", "model"},
    "composition": {"planning", "launching", "data", "evaluation", "accounting"},
    "launching": {"planning", "training", "evaluation", "tracking", "model", "data", "accounting"},
    "planning": {"accounting", "data", "tracking"},
    "training": {"model", "data", "tracking", "accounting"},
    "evaluation": {"model", "data", "sandbox"},
    "tracking": set(),
    "data": {"sandbox"},
    "sandbox": set(),
    "model": set(),
    "accounting": set(),
}
# Modules of a lower package that a higher one may use where the rest of that package is off limits.
ONLY = {"planning": {"data": "davinci.data.cards", "tracking": "davinci.tracking.records"}}


def imports(path):
    """Every module a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if node.module == "davinci")


def test_packages_import_only_what_stands_below_them(repository):
    wrong = []
    for package, allowed in ALLOWED.items():
        for path in (repository / "davinci" / package).rglob("*.py"):
            for module in imports(path):
                parts = module.split(".")
                if parts[0] == "analysis" or (
                    parts[0] == "davinci"
                    and len(parts) > 1
                    and parts[1] in ALLOWED
                    and parts[1] not in {package, *allowed}
                ):
                    wrong.append(f"{path.relative_to(repository)} imports {module}")
                only = ONLY.get(package, {})
                if parts[0] == "davinci" and len(parts) > 1 and module != only.get(parts[1], module):
                    wrong.append(f"{path.relative_to(repository)} imports {module}")
    assert not wrong


def test_hydra_stays_at_the_edge(repository):
    allowed = {repository / "launch.py", *(repository / "davinci/composition").glob("*.py")}
    for folder in ("davinci", "analysis"):
        for path in (repository / folder).rglob("*.py"):
            if path not in allowed:
                assert not {"hydra", "omegaconf"} & {module.split(".")[0] for module in imports(path)}, path


def test_planning_imports_no_torch(repository):
    code = "import sys, davinci.composition.entry, davinci.planning.build; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout.strip() == "False"
