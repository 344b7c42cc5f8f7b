"""The door for people: compose a run or a sweep with Hydra, then hand over typed objects.

    python launch.py                                  one tiny run, in the foreground
    python launch.py --cfg job                        its config
    python launch.py -m sweep=qa_ratio_stage2_2       a sweep: sweeps/qa_ratio_stage2_2.yaml
    python launch.py -m sweep=… plan_only=true        what it would train, share and cost
    python launch.py -m depth=l1,l2 seed='range(3)'   a sweep without a file
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from davinci.composition import resolvers
from davinci.composition.entry import run_single

resolvers.register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    run_single(config)


if __name__ == "__main__":
    main()
