"""The Sweeper plugin Hydra discovers: it hands ``-m`` over to `davinci.composition`."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

_TARGET = "hydra_plugins.davinci_sweeper.davinci_sweeper.DavinciSweeper"
ConfigStore.instance().store(group="hydra/sweeper", name="davinci", node={"_target_": _TARGET}, provider="davinci")


class DavinciSweeper(Sweeper):
    """Plans and launches a sweep instead of running one job after another."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader = hydra_context.config_loader
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        from davinci.composition.entry import run_sweep

        run_sweep(arguments, self.loader, self.config)
