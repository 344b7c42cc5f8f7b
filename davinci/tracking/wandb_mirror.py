"""W&B as a mirror of finished runs: a copy of the records, never the truth.

A run's W&B id is a hash of sweep and run, so mirroring it again continues the same W&B run. A marker in the store keeps
what was sent; a run whose records did not change is skipped without importing wandb.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from davinci.errors import UserError, nearest
from davinci.store import Store, read_json, write_json
from davinci.tracking.history import History, Values, history, summary

_TAG_LENGTH = 64


def run_ids(store: Store, sweep: str) -> list[str]:
    """Ids of the sweep's runs, from their manifests.

    Raises:
        UserError: the sweep was never launched from this store.
    """
    return sorted(_manifests(store, sweep))


def is_finished(store: Store, sweep: str, run: str) -> bool:
    """Whether every node of the run is marked done."""
    return all((store.node(node["id"]) / "done.json").is_file() for node in _manifest(store, sweep, run)["nodes"])


def is_mirrored(store: Store, sweep: str, run: str) -> bool:
    """Whether W&B has everything the run's records hold, as far as file sizes and times tell."""
    manifest = _manifest(store, sweep, run)
    return bool(_marker(store, manifest).get("records") == _stamp(store, manifest))


def mirror(store: Store, sweep: str, runs: Sequence[str], log: Callable[[str], None]) -> None:
    """Send what W&B does not have yet of `runs`; offline or online as each run's `tracking.mode` says.

    Raises:
        Exception: whatever wandb raises; what was sent before is marked.
    """
    manifests = _manifests(store, sweep)
    for run in runs:
        manifest = manifests[run]
        if manifest["config"]["tracking"]["mode"] == "disabled":
            continue
        stamp = _stamp(store, manifest)  # Before reading: rows that arrive meanwhile make the next pass look again.
        marker = _marker(store, manifest)
        if marker.get("records") == stamp:
            continue
        rows = history(store, manifest)
        sent: dict[str, str] = marker.get("sent", {})
        digests = {str(tokens): _digest(values) for tokens, values in rows.items()}
        new = {tokens: values for tokens, values in rows.items() if sent.get(str(tokens)) != digests[str(tokens)]}
        folders: list[str] = marker.get("folders", [])
        if new:
            _remove_leftovers(store, wandb_id(sweep, run), folders)
            folders = [*folders, _send(store, manifest, new, summary(rows))]
            log(f"{run}: {len(new)} rows sent to W&B run {wandb_id(sweep, run)}")
        write_json(
            _marker_path(store, manifest),
            {"target": _target(manifest), "records": stamp, "sent": digests, "folders": folders},
        )


def wandb_id(sweep: str, run: str) -> str:
    """The W&B id of a run: the same wherever and whenever it is mirrored."""
    return hashlib.sha256(f"{sweep}/{run}".encode()).hexdigest()[:16]


def _send(store: Store, manifest: dict[str, Any], rows: History, final: Values) -> str:
    """Log `rows` to the run's W&B run; returns the name of its local folder."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    import wandb

    config, tracking = manifest["config"], manifest["config"]["tracking"]
    tags = [manifest["arm"], config["scale"]["name"], f"seed {manifest['seed']}"]
    store.wandb.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        id=wandb_id(manifest["sweep"], manifest["id"]),
        resume="allow",
        name=f"{manifest['arm']} seed {manifest['seed']}",
        group=manifest["sweep"],
        job_type="run",
        tags=[tag[:_TAG_LENGTH] for tag in tags],
        config={**config, "run_id": manifest["id"], "nodes": [node["id"] for node in manifest["nodes"]]},
        project=tracking["project"],
        entity=tracking["entity"],
        mode=tracking["mode"],
        dir=store.root,  # wandb adds its own folder "wandb", which is store.wandb.
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    try:
        run.define_metric("tokens", hidden=True)
        run.define_metric("*", step_metric="tokens")
        for tokens, values in rows.items():
            run.log({"tokens": tokens, **values})
        run.summary.update(final)
        return Path(run.dir).parent.name
    finally:
        run.finish()


def _remove_leftovers(store: Store, identity: str, folders: Sequence[str]) -> None:
    """Remove offline runs that a killed mirror left half-written: they are sent again whole."""
    for path in store.wandb.glob(f"offline-run-*-{identity}"):
        if path.name not in folders:
            shutil.rmtree(path)


def _manifests(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    path = store.runs(sweep)
    if not path.is_file():
        if (path.parent / "plan.json").is_file():
            raise UserError(f"sweep {sweep!r} was planned but never launched; launch it without plan_only=true")
        known = [path.parent.name for path in (store.root / "sweeps").glob("*/runs.json")]
        raise UserError(f"store {store.root} has no sweep {sweep!r}" + nearest(sweep, known))
    manifests: dict[str, dict[str, Any]] = read_json(path)
    return manifests


def _manifest(store: Store, sweep: str, run: str) -> dict[str, Any]:
    manifests = _manifests(store, sweep)
    if run not in manifests:
        raise UserError(f"sweep {sweep} has no run {run!r}" + nearest(run, manifests))
    return manifests[run]


def _target(manifest: dict[str, Any]) -> dict[str, Any]:
    tracking: dict[str, Any] = manifest["config"]["tracking"]
    return tracking


def _marker_path(store: Store, manifest: dict[str, Any]) -> Path:
    return store.wandb / "mirrored" / f"{wandb_id(manifest['sweep'], manifest['id'])}.json"


def _marker(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """What was sent to the run's present target; empty if nothing was."""
    path = _marker_path(store, manifest)
    marker: dict[str, Any] = read_json(path) if path.is_file() else {}
    return marker if marker.get("target") == _target(manifest) else {}


def _stamp(store: Store, manifest: dict[str, Any]) -> list[list[Any]]:
    """Size and time of each record file, and the range of it that belongs to the run."""
    stamp = []
    for node in manifest["nodes"]:
        path = store.records(node["id"])
        status = path.stat() if path.is_file() else None
        stamp.append(
            [node["id"], node["begin"], node["end"], *([status.st_size, status.st_mtime_ns] if status else [])]
        )
    return stamp


def _digest(values: Values) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
