"""A sweep's W&B workspace, made with the official ``wandb-workspaces``: what one looks at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from davinci.errors import UserError
from davinci.tracking.wandb_runs import Shown

# Parallel coordinates with more axes than this cannot be read.
_MOST_AXES = 8


def workspace(sweep: str, entity: str, shown: Mapping[str, Shown], table: str) -> Any:
    """The workspace of `sweep` as ``wandb_workspaces`` knows it, not saved yet.

    Args:
        sweep: also the workspace's name.
        entity: whose.
        shown: what W&B has of the sweep.
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
    domains = _scored(runs)

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

    averages = [f"{domain} average" for domain in domains] + ["Overall average"]
    axes = [
        *(reports.ParallelCoordinatesPlotColumn(reports.Config(f"factors.{name}"), name) for name in _factors(runs)),
        *(reports.ParallelCoordinatesPlotColumn(reports.SummaryMetric(f"eval/{name}"), name) for name in averages),
    ]
    losses = [section("Loss by domain", [lines(f"{name}, nats a token", f"train/loss/{name}") for name in _read(runs)])]
    return workspaces.Workspace(
        entity=entity,
        project=runs[0].tracking["project"],
        name=sweep,
        sections=[
            section("Domain scores by arm", [lines(name, f"eval/{name}") for name in averages]),
            *losses,
            section("Held-out loss", [lines(f"{name}, nats a token", f"heldout/{name}/loss") for name in _read(runs)]),
            section("Factors", [reports.ParallelCoordinatesPlot(title="Factors and final scores", columns=axes)]),
            section("Ablation table", [reports.MarkdownPanel(markdown=table)]),
            section(
                "Training",
                [lines("Loss", "train/loss"), lines("Learning rate", "train/lr"), lines("Stage", "stage/place")],
            ),
        ],
        settings=workspaces.WorkspaceSettings(x_axis="tokens"),
        runset_settings=workspaces.RunsetSettings(
            filters=[expr.Metric("Group") == sweep, expr.Metric("JobType") == "run"],
            groupby=[expr.Config("arm")],
        ),
    )


def _scored(runs: list[Shown]) -> list[str]:
    """Domains that the runs' suites score, as `history` spells them."""
    suites = [run.manifest["config"]["evaluation"]["benchmarks"].values() for run in runs]
    return sorted({benchmark["domain"].capitalize() for suite in suites for benchmark in suite})


def _read(runs: list[Shown]) -> list[str]:
    """Domains that the runs train on."""
    pools = [run.manifest["config"].get("pool", {}).get("sources", {}).values() for run in runs]
    return sorted({source["domain"] for pool in pools for source in pool})


def _factors(runs: list[Shown]) -> list[str]:
    """The factors that differ between runs, first those with numbers: they make the better axes."""
    levels: dict[str, list[Any]] = {}
    for run in runs:
        for name, level in run.config["factors"].items():
            levels.setdefault(name, []).append(level)
    differing = [name for name, found in levels.items() if len(set(map(str, found))) > 1]
    return sorted(differing, key=lambda name: (isinstance(levels[name][0], str), name))[:_MOST_AXES]
