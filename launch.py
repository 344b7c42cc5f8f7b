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
from pathlib import Path

import hydra
from omegaconf import DictConfig

from davinci.composition import resolvers
from davinci.composition.choices import require_flags, said_of
from davinci.composition.errors import composition_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="config")  # type: ignore[untyped-decorator,unused-ignore]
def main(config: DictConfig) -> None:
    from davinci.composition.entry import run_single

    run_single(config)


if __name__ == "__main__":
    gc.set_threshold(100_000, 20, 100)  # a plan is many small objects that stay: a tenth of the time went on cycles
    resolvers.register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's errors through, to say them on one line
    require_flags(sys.argv[1:])
    try:
        main()
    except (*composition_errors, ValueError, TypeError) as error:
        said = said_of(error, Path(__file__).resolve().parent / "conf")
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `launch.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
