"""What W&B shows of a sweep: a W&B run a run, and one a trunk, a stretch of training that several runs share.

A W&B id is a hash of the sweep and what is shown, so that it is the same wherever and whenever it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from davinci.errors import UserError, nearest
from davinci.store import Store, read_json

TAG_LENGTH = 64  # W&B's limit


@dataclass(frozen=True)
class Shown:
    """One W&B run as it should be.

    Attributes:
        id: of the W&B run.
        manifest: what it is a view of, as in ``runs.json``: `nodes` with their ranges, `points`, `config`.
        stages: name, begin and end (tokens since initialisation) of each stage, in order.
        begin: tokens at which the stretch begins that no W&B run of more runs shows.
        config: as W&B shows it.
    """

    id: str
    sweep: str
    name: str
    job_type: Literal["run", "trunk", "evaluation"]
    notes: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    manifest: dict[str, Any]
    stages: tuple[tuple[str, int, int], ...]
    begin: int

    @property
    def tracking(self) -> dict[str, Any]:
        tracking: dict[str, Any] = self.manifest["config"]["tracking"]
        return tracking

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """`id`, `begin` and `end` of each node, from the root."""
        nodes: list[dict[str, Any]] = self.manifest["nodes"]
        return nodes

    def is_finished(self, store: Store) -> bool:
        """Whether every node is marked done."""
        return all((store.node(node["id"]) / "done.json").is_file() for node in self.nodes)

    def committed(self, store: Store) -> dict[str, int]:
        """By node, the tokens up to which its rows stand: what comes after its last checkpoint may be trained again."""
        found = {}
        for node in self.nodes:
            if not (store.node(node["id"]) / "done.json").is_file():
                folder = store.checkpoint(node["id"], 0).parent
                found[node["id"]] = max((int(one.name) for one in _listed(folder) if one.name.isdigit()), default=0)
        return found


def wandb_id(sweep: str, name: str) -> str:
    """The W&B id of a run, or of another thing named `name`, of `sweep`."""
    return hashlib.sha256(f"{sweep}/{name}".encode()).hexdigest()[:16]


def shown(store: Store, sweep: str) -> dict[str, Shown]:
    """By name (a run's id, or ``trunk-<node>``), trunks first.

    Raises:
        UserError: the sweep was never launched from this store.
    """
    manifests = manifests_of(store, sweep)
    plan = launched(store, sweep)
    factors = levels(plan)
    trunks = _trunks(sweep, manifests)
    begins = dict.fromkeys(manifests, 0)
    for trunk in trunks:
        begins |= {run: max(begins[run], trunk["nodes"][-1]["end"]) for run in trunk["runs"]}
    return {f"trunk-{trunk['id']}": _shown_trunk(trunk, plan) for trunk in trunks} | {
        name: _shown_run(manifest, begins[name], plan, factors) for name, manifest in sorted(manifests.items())
    }


def manifests_of(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    """The sweep's runs by id.

    Raises:
        UserError: the sweep was never launched from this store.
    """
    path = store.runs(sweep)
    if not path.is_file():
        if (path.parent / "plan.json").is_file():
            raise UserError(f"sweep {sweep!r} was planned but never launched; launch it without plan_only=true")
        known = [path.parent.name for path in (store.root / "sweeps").glob("*/runs.json")]
        raise UserError(f"store {store.root} has no sweep {sweep!r}" + nearest(sweep, known))
    manifests: dict[str, dict[str, Any]] = read_json(path)
    return manifests


def levels(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By arm, what it sets: the level of each factor as its override names it, and every number or word below a factor
    that differs between arms, under the shortest names that tell them apart."""
    if not plan:
        return {}
    factors, differing = plan["audit"]["factor"], plan["audit"]["differing"]
    found = {}
    for arm in plan["arms"]:
        resolved = {key: _at(arm["config"], key) for key in [*factors, *differing]}
        scalars = {key: value for key, value in resolved.items() if isinstance(value, int | float | str)}
        found[arm["label"]] = scalars | _overridden(arm["overrides"], factors)
    names = _short({key for one in found.values() for key in one})
    return {arm: {names[key]: value for key, value in sorted(one.items())} for arm, one in found.items()}


def launched(store: Store, sweep: str) -> dict[str, Any]:
    """The plan as it was launched last; empty where there is none."""
    path = store.sweep(sweep) / "launched.json"
    plan: dict[str, Any] = read_json(path) if path.is_file() else {}
    return plan


def _shown_run(
    manifest: dict[str, Any], begin: int, plan: Mapping[str, Any], factors: Mapping[str, dict[str, Any]]
) -> Shown:
    arm: dict[str, Any] = next((one for one in plan.get("arms", ()) if one["label"] == manifest["arm"]), {})
    mine = factors.get(manifest["arm"], {})
    stages = _stages(manifest, plan)
    config = manifest["config"] | {
        "run_id": manifest["id"],
        "nodes": manifest["nodes"],
        "points": manifest["points"],
        "stages": _named(stages),
        "factors": mine,
        "is_baseline": arm.get("is_baseline", False),
        "overrides": arm.get("overrides", []),
    }
    tags = [manifest["arm"], *(f"{key}={value}" for key, value in mine.items() if not isinstance(value, float))]
    return Shown(
        id=wandb_id(manifest["sweep"], manifest["id"]),
        sweep=manifest["sweep"],
        name=f"{manifest['arm']} seed {manifest['seed']}",
        job_type="run",
        notes=_question(plan),
        tags=_tags([*tags, manifest["config"]["scale"]["name"], f"seed {manifest['seed']}"]),
        config=config,
        manifest=manifest,
        stages=stages,
        begin=begin,
    )


def _trunks(sweep: str, manifests: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """A manifest for every stretch that the same runs share, from the root to its end. Its `id` is that of the first
    node of the stretch, its config what the configs of its runs have in common."""
    sharing: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        for node in manifest["nodes"]:
            sharing.setdefault(node["id"], []).append(name)
    stretches: dict[tuple[str, ...], str] = {}
    for node, names in sharing.items():
        if len(names) > 1:
            stretches.setdefault(tuple(names), node)
    found = []
    for together, first in stretches.items():
        names = list(together)
        runs = [manifests[name] for name in names]
        nodes = [node for node in runs[0]["nodes"] if set(names) <= set(sharing[node["id"]])]
        held = {node["id"] for node in nodes}
        points = {json.dumps(point): point for run in runs for point in run["points"] if point["node"] in held}
        found.append(
            {
                "id": first,
                "begin": next(node["begin"] for node in nodes if node["id"] == first),
                "sweep": sweep,
                "runs": names,
                "seeds": sorted({run["seed"] for run in runs}),
                "nodes": nodes,
                "points": list(points.values()),
                "config": _common([run["config"] for run in runs])
                | {name: runs[0]["config"][name] for name in ("evaluation", "tracking", "scale")},
            }
        )
    return found


def _shown_trunk(trunk: dict[str, Any], plan: Mapping[str, Any]) -> Shown:
    stages = _stages(trunk, plan)
    seeds = [f"seed {seed}" for seed in trunk["seeds"]] if len(trunk["seeds"]) == 1 else []
    config = trunk["config"] | {"runs": trunk["runs"], "nodes": trunk["nodes"], "stages": _named(stages)}
    return Shown(
        id=wandb_id(trunk["sweep"], f"trunk/{trunk['id']}"),
        sweep=trunk["sweep"],
        name=" ".join(["trunk", *([stages[-1][0]] if stages else []), trunk["nodes"][-1]["id"]]),
        job_type="trunk",
        notes=_question(plan),
        tags=_tags(["trunk", trunk["config"]["scale"]["name"], *seeds]),
        config=config,
        manifest=trunk,
        stages=stages,
        begin=trunk["begin"],
    )


def _stages(manifest: dict[str, Any], plan: Mapping[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """Name, begin and end of each stage, or of as much of it as there is."""
    found: dict[tuple[str, int], int] = {}
    for node in manifest["nodes"]:
        planned = plan.get("nodes", {}).get(node["id"])
        if planned is not None:
            found[planned["stage_name"], planned["stage_begin"]] = node["end"]
    return tuple((name, begin, end) for (name, begin), end in found.items())


def _named(stages: Iterable[tuple[str, int, int]]) -> dict[str, dict[str, int]]:
    return {name: {"place": place, "begin": begin, "end": end} for place, (name, begin, end) in enumerate(stages)}


def _question(plan: Mapping[str, Any]) -> str:
    question = plan.get("question") or {}
    return str(question.get("text") or "")


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    """W&B takes a tag once, and none that is empty or long: of a long one its end says more."""
    return tuple(dict.fromkeys(tag[-TAG_LENGTH:] for tag in tags if tag))


def _overridden(overrides: Sequence[str], factors: Sequence[str]) -> dict[str, Any]:
    found = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        key = key.rpartition("@")[2]
        if any(f"{key}.".startswith(f"{factor}.") or f"{factor}.".startswith(f"{key}.") for factor in factors):
            found[key] = _plain(value)
    return found


def _plain(text: str) -> Any:
    """A number or truth value where the text is one."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _at(config: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _short(keys: Iterable[str]) -> dict[str, str]:
    """Each dotted key's shortest ending that no other has, of two parts or more, joined by underscores."""
    found, parted = {}, {key: key.split(".") for key in keys}
    for key, parts in parted.items():
        length = 2
        while length < len(parts) and any(
            one[-length:] == parts[-length:] for other, one in parted.items() if other != key
        ):
            length += 1
        found[key] = "_".join(parts[-length:])
    return found


def _common(values: Sequence[Any]) -> Any:
    """What nested mappings have in common: keys with equal values."""
    first = values[0]
    if not all(isinstance(value, dict) for value in values):
        return first
    return {
        key: _common([value[key] for value in values])
        for key in first
        if all(key in value for value in values)
        and (all(isinstance(value[key], dict) for value in values) or all(value[key] == first[key] for value in values))
    }


def _listed(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return ()
