"""The door for people: compose a run or a sweep with Hydra, then hand over typed objects.

python launch.py                                  one tiny run, in the foreground
python launch.py --cfg job                        its config
python launch.py -m sweep=qa_ratio_stage2_2       a sweep: sweeps/qa_ratio_stage2_2.yaml
python launch.py -m sweep=… plan_only=true        what it would train, share and cost
python launch.py -m depth=l1,l2 seed='range(3)'   a sweep without a file
"""

from __future__ import annotations

import gc
import os
import sys

import hydra
from omegaconf import DictConfig

from davinci.composition import resolvers
from davinci.composition.errors import composition_errors, one_line


@hydra.main(version_base="1.3", config_path="conf", config_name="config")  # type: ignore[untyped-decorator,unused-ignore]
def main(config: DictConfig) -> None:
    from davinci.composition.entry import run_single

    run_single(config)


if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 100)  # a plan is many small objects that stay: a tenth of the time went on cycles
    resolvers.register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's errors through, to say them on one line
    try:
        main()
    except composition_errors as error:
        print(f"error: command line: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        if not str(error).startswith("Only one of --run"):  # Hydra's word on flags that exclude each other
            raise
        print(f"error: command line: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `launch.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
