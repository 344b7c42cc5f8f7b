"""What `evaluation.py` races: one harness model a process, answering the same lm-eval requests in turn.

Usage: python benchmarks/_evaluators.py NAME FOLDER. NAME is ``daVinci`` or ``hflm``; the folder holds `race.json`,
the checkpoint's weights and its export ``hf/``. For every line "KIND BATCH" (``choice`` or ``generation``; the batch
size of HFLM) the process answers all requests of that kind and prints the seconds that took, by the wall clock
and of the processor; the answers are in ``NAME-KIND.json``. HFLM imports of daVinci only the task files' reader of
items.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Requests = list[Any]


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    race = json.loads((folder / "race.json").read_text())
    torch.set_num_threads(race["threads"])
    torch.set_flush_denormal(True)
    requests = {kind: requests_of(race, kind) for kind in race["tasks"]}
    model = {"daVinci": davinci, "hflm": hflm}[name](race, folder)
    print("ready", {kind: len(found) for kind, found in requests.items()}, file=answers)
    for line in sys.stdin:
        kind, batch = line.split()
        answer = model(int(batch))
        ask = answer.loglikelihood if kind == "choice" else answer.generate_until
        wall, cpu = time.perf_counter(), time.process_time()
        found = ask(requests[kind], disable_tqdm=True)
        took = time.perf_counter() - wall, time.process_time() - cpu
        (folder / f"{name}-{kind}.json").write_text(json.dumps(found))  # before the answer: then it is read
        print(*took, file=answers)


def requests_of(race: dict[str, Any], kind: str) -> Requests:
    """lm-eval's own requests of the tasks of one kind, in their order."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=race["folder"], include_defaults=False, metadata={"folder": race["items"]})
    found = []
    for name in race["tasks"][kind]:
        for task in manager.load([name])["tasks"].values():
            task.set_config("num_fewshot", race["shots"])
            task.set_fewshot_seed(1234)
            task.build_all_requests(limit=race["limit"])
            found += task.instances
    return found


def davinci(race: dict[str, Any], folder: Path) -> Callable[[int], Any]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from davinci.config import Model, parse
    from davinci.evaluation.adapter import DecoderLM
    from davinci.model.decoder import Decoder
    from davinci.training.numerics import configure

    configure(race["threads"])  # as every process of the program that evaluates
    model = Decoder(parse(Model, race["model"]), race["vocab_size"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "hf" / "tokenizer.json"))
    return lambda batch: DecoderLM(model, tokenizer)


def hflm(race: dict[str, Any], folder: Path) -> Callable[[int], Any]:
    import transformers
    from lm_eval.models.huggingface import HFLM

    transformers.utils.logging.set_verbosity_error()
    made: dict[int, Any] = {}

    def model(batch: int) -> Any:
        if batch not in made:
            made[batch] = HFLM(
                pretrained=str(folder / "hf"),
                device="cpu",
                dtype="float32",
                batch_size=batch,
                max_length=race["length"],
            )
        return made[batch]

    return model


if __name__ == "__main__":
    main()
