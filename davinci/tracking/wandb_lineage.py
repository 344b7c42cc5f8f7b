"""Where scores come from, as W&B artifacts by reference: dataset, checkpoint, evaluation. No file is uploaded.

A run takes its dataset and the checkpoint that it starts from, and gives its own checkpoints; its evaluation, a W&B run
of its own, takes those that were evaluated and gives the evaluation. An artifact's version follows from what it refers
to alone, so that W&B knows one checkpoint again whoever names it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from davinci.store import Store, read_json
from davinci.tracking.history import rows_of
from davinci.tracking.wandb_runs import Shown, wandb_id
from davinci.tracking.wandb_session import Session, artifact_made, client, plain_errors

COLUMNS = (
    "stage",
    "tokens",
    "label",
    "weights",
    "benchmark",
    "domain",
    "protocol",
    "metric",
    "score",
    "items",
    "chance",
)


@dataclass(frozen=True)
class Artifact:
    """Files elsewhere under a name: `entries` are, by path within it, where a file is and a text that changes with it.

    `metadata` is shown, and is no part of the version.
    """

    name: str
    type: str
    entries: Mapping[str, tuple[str, str]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    alias: str | None = None

    @property
    def version(self) -> str:
        """Tells apart what was sent: also other scores of the same items."""
        content = repr((sorted(self.entries.items()), self.metadata.get("scores")))
        return f"{self.name}:{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def send(session: Session, artifact: Artifact, *, used: bool) -> None:
    """Name `artifact` as an input of the session's run, or else as an output."""
    from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry

    with artifact_made:
        made = client().Artifact(artifact.name, type=artifact.type, metadata=dict(artifact.metadata))
    for path, (place, text) in sorted(artifact.entries.items()):
        digest = base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).decode()
        made.manifest.add_entry(ArtifactManifestEntry(path=path, ref=place, digest=digest))
    aliases = [artifact.alias] if artifact.alias else []
    with plain_errors():
        if used:  # What `use_artifact` does with one that W&B may not know yet, but it refuses to offline.
            session.run._log_artifact(made, aliases=aliases, is_user_created=True, use_after_commit=True)
        else:
            session.run.log_artifact(made, aliases=aliases)


def dataset(shown: Shown, store: Store, plan: Mapping[str, Any]) -> Artifact | None:
    """The sources that the run reads, at their depths; None where no plan says."""
    planned = [plan["nodes"][node["id"]] for node in shown.nodes if node["id"] in plan.get("nodes", {})]
    if not planned:
        return None
    pool = planned[0]["pool"]
    sources = {
        f"{name}@{source['depth']}": source for node in planned for name, source in sorted(node["sources"].items())
    }
    return Artifact(
        name=_named(f"dataset-{pool}"),
        type="dataset",
        entries={name: (_uri(store.pool(pool) / name), source["digest"]) for name, source in sources.items()},
        metadata={
            "pool": pool,
            "tokenizer": planned[0]["tokenizer_digest"],
            "sources": {name: {"domain": one["domain"], "digest": one["digest"]} for name, one in sources.items()},
        },
    )


def checkpoint(store: Store, node: str, tokens: int) -> Artifact:
    """The state of `node` at `tokens` since initialisation, whether or not its folder is still kept."""
    folder = store.checkpoint(node, tokens)
    try:
        state = read_json(folder / "state.json")
    except OSError:
        state = {}
    return Artifact(
        name=_named(f"checkpoint-{node}"),
        type="checkpoint",
        entries={"checkpoint": (_uri(folder), f"{node}/{tokens}")},
        metadata={"node": node, "tokens": tokens, "digests": state.get("digests", {})},
        alias=str(tokens),
    )


def evaluation(store: Store, shown: Shown, rows: Iterable[Mapping[str, Any]]) -> Artifact:
    """The per-item results of evaluation `rows` (see `evaluations`)."""
    files = sorted({(row["node"], row["key"]) for row in rows if row["key"]})
    return Artifact(
        name=_named(f"evaluation-{shown.manifest['id']}"),
        type="evaluation",
        entries={
            f"{node}/{key}.parquet": (_uri(store.node(node) / "evaluations" / f"{Path(key).name}.parquet"), key)
            for node, key in files
        },
        metadata={
            "run": shown.manifest["id"],
            "checkpoints": sorted({f"{_named('checkpoint-' + row['node'])}:{row['tokens']}" for row in rows}),
            "scores": [{name: row[name] for name in COLUMNS} for row in rows][-500:],
        },
    )


def evaluated(store: Store, shown: Shown) -> list[dict[str, Any]]:
    """A row an evaluation of the run: `COLUMNS`, and the `node` and the `key` of its per-item results."""
    labels = {(point["tokens"], point["weights"]): point["label"] for point in shown.manifest["points"]}
    found = []
    for row, prefix in rows_of(store, shown.manifest):
        if row["kind"] != "evaluation":
            continue
        tokens, weights = row["tokens"], prefix.removeprefix("eval").lstrip("_") or "trained"
        found.append(
            {
                "stage": next((name for name, begin, end in shown.stages if begin < tokens <= end), ""),
                "tokens": tokens,
                "label": labels.get((tokens, "average" if weights.startswith("average") else "trained"), str(tokens)),
                "weights": weights,
                "benchmark": row["benchmark"],
                "domain": row["domain"],
                "protocol": row.get("protocol", ""),
                "metric": row.get("metric", ""),
                "score": row["score"],
                "items": row.get("items"),
                "chance": row.get("chance"),
                "key": row.get("key", ""),
                "node": next(node["id"] for node in shown.nodes if tokens <= node["end"]),
            }
        )
    return found


def evaluation_of(shown: Shown) -> Shown:
    """The W&B run that stands for the evaluation of what `shown` shows."""
    name = shown.manifest["id"]
    return replace(
        shown,
        id=wandb_id(shown.sweep, f"{shown.job_type}/{name}/evaluation"),
        name=f"{shown.name} evaluation",
        job_type="evaluation",
        config={"run_id": name, "wandb_run": shown.id, "evaluation": shown.manifest["config"]["evaluation"]},
    )


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _named(name: str) -> str:
    """What W&B takes for the name of an artifact."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:128]
