"""A sweep's W&B workspace, made with the official ``wandb-workspaces``: what one looks at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from davinci.errors import UserError
from davinci.tracking.history import score_prefix
from davinci.tracking.wandb_runs import Shown

# Parallel coordinates with more axes than this cannot be read.
_MOST_AXES = 8
# What is drawn of routers, means over layers: record value -> title.
_ROUTERS = {
    "load_max": "Busiest expert's load, 1 is even",
    "entropy": "Entropy of loads, 1 is even",
    "unused": "Share of experts nobody chose",
    "balance": "Balancing loss, 1 is even",
}


def workspace(sweep: str, entity: str, shown: Mapping[str, Shown], plan: Mapping[str, Any], table: str) -> Any:
    """The workspace of `sweep` as ``wandb_workspaces`` knows it, not saved yet.

    Args:
        sweep: also the workspace's name.
        entity: whose.
        shown: what W&B has of the sweep.
        plan: as it was launched.
        table: the ablation table, in Markdown.

    Raises:
        UserError: ``wandb-workspaces`` is missing, or the sweep has no runs.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
        from wandb_workspaces import expr
    except ImportError as error:
        raise UserError(f"dashboard needs wandb-workspaces ({error}); pip install wandb-workspaces") from None
    runs = [one for one in shown.values() if one.job_type == "run"]
    if not runs:
        raise UserError(f"sweep {sweep!r} has no runs to show")
    domains, prefixes = _scored(runs), _prefixes(runs)

    def lines(title: str, metric: str) -> Any:
        return reports.LinePlot(
            title=title,
            x="tokens",
            y=[metric],
            groupby=reports.Config("arm"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",  # the seeds
        )

    def section(name: str, panels: list[Any]) -> Any:
        return workspaces.Section(name=name, panels=panels, is_open=True)

    averages = [f"{domain} average" for domain in [*domains, "Overall"]]
    scores = {
        f"{prefix}/{name}": name if prefix == "eval" else f"{name} ({prefix.removeprefix('eval_')})"
        for prefix in prefixes
        for name in averages
    }
    axis = reports.ParallelCoordinatesPlotColumn
    axes = [axis(reports.Config(f"factors.{name}"), name) for name in _factors(runs)]
    axes += [axis(reports.SummaryMetric(metric), name) for metric, name in scores.items()]
    arms = {run.manifest["arm"] for run in runs}
    trained, pool = _trained(runs, plan), _pool(runs)
    routers = [section("Routers", [lines(title, f"train/router/{name}") for name, title in _ROUTERS.items()])]
    return workspaces.Workspace(
        entity=entity,
        project=runs[0].tracking["project"],
        name=sweep,
        sections=[
            section("Domain scores by arm", [lines(name, metric) for metric, name in scores.items()]),
            section("Loss by domain", [lines(f"{name}, nats a token", f"train/loss/{name}") for name in trained]),
            section("Held-out loss", [lines(f"{name}, nats a token", f"heldout/{name}/loss") for name in pool]),
            section("Factors", [reports.ParallelCoordinatesPlot(title="Factors and final scores", columns=axes)]),
            section("Ablation table", [reports.MarkdownPanel(markdown=table)]),
            section(
                "Training",
                [lines("Loss", "train/loss"), lines("Learning rate", "train/lr"), lines("Stage", "stage/place")],
            ),
            *(routers if any(map(_has_experts, runs)) else []),
        ],
        settings=workspaces.WorkspaceSettings(x_axis="tokens", max_runs=max(10, len(arms))),  # it would show ten arms
        runset_settings=workspaces.RunsetSettings(
            filters=[expr.Metric("Group") == sweep, expr.Metric("JobType") == "run"],
            groupby=[expr.Config("arm")],
        ),
    )


def _scored(runs: list[Shown]) -> list[str]:
    """Domains that the runs' suites score, as `history` spells them."""
    suites = [run.manifest["config"]["evaluation"]["benchmarks"].values() for run in runs]
    return sorted({benchmark["domain"].capitalize() for suite in suites for benchmark in suite})


def _prefixes(runs: list[Shown]) -> list[str]:
    """What the runs' scores stand under (see `history`): they may be of averages alone."""
    found = [
        {score_prefix(point["weights"], len(point["states"])) for point in run.manifest["points"]} or {"eval"}
        for run in runs
    ]
    return sorted(set().union(*found))


def _trained(runs: list[Shown], plan: Mapping[str, Any]) -> list[str]:
    """Domains that some run trains on."""
    nodes = {node["id"] for run in runs for node in run.nodes} & plan.get("nodes", {}).keys()
    return sorted({source["domain"] for node in nodes for source in plan["nodes"][node]["sources"].values()})


def _pool(runs: list[Shown]) -> list[str]:
    """Domains of the runs' pools: their held-out loss is measured whether they are trained on or not."""
    pools = [run.manifest["config"].get("pool", {}).get("sources", {}).values() for run in runs]
    return sorted({source["domain"] for pool in pools for source in pool})


def _has_experts(run: Shown) -> bool:
    return bool(run.manifest["config"].get("model", {}).get("experts", {}).get("count"))


def _factors(runs: list[Shown]) -> list[str]:
    """The factors that differ between runs, first those with numbers: they make the better axes."""
    levels: dict[str, list[Any]] = {}
    for run in runs:
        for name, level in run.config["factors"].items():
            levels.setdefault(name, []).append(level)
    differing = [name for name, found in levels.items() if len(set(map(str, found))) > 1]
    return sorted(differing, key=lambda name: (isinstance(levels[name][0], str), name))[:_MOST_AXES]
