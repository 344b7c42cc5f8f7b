"""A suite by its name in conf/evaluation, or from a YAML file: what to evaluate where no sweep says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from davinci.composition import resolvers
from davinci.composition.errors import composition_errors, one_line
from davinci.config import Evaluation, parse
from davinci.errors import UserError, nearest
from davinci.evaluation.suite import check

CONF = Path(__file__).resolve().parents[2] / "conf"


def suite(name: str, scale: str, pool: str, overrides: Sequence[str] = ()) -> Evaluation:
    """The suite that `name` says: a file of conf/evaluation, or the path of a YAML file with a suite's keys.

    A file needs `suite`, `harness` and `benchmarks`; the other keys have defaults. `at` and `probes` are left out: they
    say when, not what.

    Args:
        name: ``embedded``, or a path that ends in .yaml.
        scale: the scale whose values conf/evaluation may interpolate; one that conf/ does not have counts as tiny.
        pool: the pool whose items conf/evaluation may choose.
        overrides: Hydra's, of keys of the suite: ``evaluation.run_code=isolated``.

    Raises:
        UserError: no such suite or file (nearest names), or a mistake in it.
    """
    is_file = name.endswith((".yaml", ".yml")) or "/" in name
    where = name if is_file else f"conf/evaluation/{name}.yaml"
    wrong = [one for one in overrides if not one.lstrip("+~").startswith("evaluation.")]
    if wrong:
        raise UserError(f"--set {wrong[0]}: accepted are keys of the suite, such as evaluation.run_code=isolated")
    if is_file and overrides:
        raise UserError(f"--set {overrides[0]}: the suite is a file; write it in {name}")
    data = _read(Path(name)) if is_file else _composed(name, scale, pool, overrides)
    data = {"suite": Path(name).stem, "limit": None, "heldout_sequences": 1, **data, "at": [], "probes": None}
    evaluation = parse(Evaluation, data, lambda key: where)
    try:
        check(evaluation)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return evaluation


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--suite {path}: {error.strerror}; known suites: {', '.join(_names())}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--suite {path}: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"--suite {path}: not a suite, which has the keys suite, harness and benchmarks")
    return data


def _composed(name: str, scale: str, pool: str, overrides: Sequence[str]) -> dict[str, Any]:
    if name not in _names():
        raise UserError(f"--suite: conf/evaluation has no {name!r}" + nearest(name, _names()))
    resolvers.register()
    chosen = [f"{group}={value}" for group, value in (("scale", scale), ("pool", pool)) if _is_there(group, value)]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides=[*chosen, f"evaluation={name}", *overrides])
            data: Any = OmegaConf.to_container(config.evaluation, resolve=True)
    except composition_errors as error:
        raise UserError(f"--suite {name}: {one_line(error)}") from None
    finally:
        GlobalHydra.instance().clear()
    return dict(data)


def _names() -> list[str]:
    return sorted(path.stem for path in (CONF / "evaluation").glob("*.yaml"))


def _is_there(group: str, name: str) -> bool:
    return (CONF / group / f"{name}.yaml").is_file()
