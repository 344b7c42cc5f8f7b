"""What evaluating the whole embedded suite takes of a tiny run, trained and evaluated by the program's own loop."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from _table import Row
from training import Shape, node_of

from davinci.config import Evaluation, parse
from davinci.data.cards import PoolCard
from davinci.evaluation.evaluate import evaluate
from davinci.store import Store
from davinci.training.loop import train
from davinci.training.numerics import configure

ROOT = Path(__file__).resolve().parent.parent
# conf/model/tiny.yaml, in the batches of conf/scale/tiny.yaml.
TINY = Shape("tiny", 2, 128, 4, 2, 352, 4, 128, 0, 0.0)
# A run is 8T tokens of the paper, 305,176 each, and is evaluated at the ends of its four stages.
EVALUATIONS = 4
TOKENS = 8 * 305_176 // EVALUATIONS
ALLOWED = 0.2


def share(card: PoolCard, pools: Path, threads: int, part: int, clock: Callable[[], float]) -> Row:
    """The row of a run's share; a `part` of a stage is trained (and counted as often), then its end evaluated twice."""
    configure(threads)
    with tempfile.TemporaryDirectory(prefix="davinci-bench-") as temporary:
        store = Store(Path(temporary))
        (store.root / "pools").symlink_to(pools.absolute())
        node = node_of(TINY, card, TOKENS // part // (TINY.sequences * TINY.length))
        node = node.model_copy(update={"model": node.model.model_copy(update={"max_position_embeddings": 256})})
        started = clock()
        train(node, store, checkpoints=[node.end], attempt=1, progress=lambda *_: None, should_stop=lambda: False)
        training = (clock() - started) * part
        passes = []
        for _ in range(2):  # the first of a process imports lm-eval and loads the tasks
            started = clock()
            evaluate(store.checkpoint(node.id, node.end), node, suite(), store)
            passes.append(clock() - started)
            shutil.rmtree(store.node(node.id) / "evaluations")
    first, later = passes
    evaluating = first + (EVALUATIONS - 1) * later
    found = evaluating / (evaluating + EVALUATIONS * training)
    print(f"  tiny run: {EVALUATIONS} x {training:.1f} s of training, passes of {first:.1f} s, then {later:.1f} s")
    return Row(
        "tiny run: share of its time in evaluation", f"{found:.1%}", f"{ALLOWED:.0%} allowed", ALLOWED / found, 1
    )


def suite() -> Evaluation:
    """conf/evaluation/embedded.yaml."""
    found = yaml.safe_load((ROOT / "conf" / "evaluation" / "embedded.yaml").read_text())
    asked = {key: value for key, value in found.items() if key in Evaluation.model_fields and key != "probes"}
    return parse(Evaluation, asked)
