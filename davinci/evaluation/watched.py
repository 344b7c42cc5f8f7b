"""A benchmark scored while a node trains, for a stage that ends when the score stops rising."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from davinci.config import Evaluation, Node
from davinci.errors import UserError
from davinci.evaluation.settings import FEWSHOT_SEED, benchmark_digest, settings_digest
from davinci.model.decoder import Decoder
from davinci.store import Store


@dataclass(frozen=True)
class Watched:
    """The one benchmark of `evaluation`, as `node` was planned to watch it.

    Raises:
        UserError: it is not what the node was planned with.
    """

    node: Node
    evaluation: Evaluation
    store: Store

    def __post_init__(self) -> None:
        (name,) = self.evaluation.benchmarks
        planned = self.node.watched.get(f"benchmark/{name}")
        if planned not in (None, benchmark_digest(self.node.pool, self.evaluation, self.store)):
            raise UserError(
                f"{self.store.pool(self.node.pool) / 'tasks'}: benchmark {name} is not what node {self.node.id} was "
                "planned to watch; launch the sweep again"
            )

    def score(self, model: Decoder) -> float:
        """Its score, 0 to 1. Leaves the model as it is.

        Raises:
            UserError: an unknown task or metric, or a pool whose benchmark items are missing.
        """
        from davinci.evaluation.harness import run  # lm-eval: not before the first check

        def load() -> Any:
            from davinci.evaluation.adapter import DecoderLM

            return DecoderLM(model, self._tokenizer, end_of_text=self.node.end_of_text)

        tasks, was_training = self.store.pool(self.node.pool) / "tasks", model.training
        scores, _ = run(load, tasks, self.evaluation, self.store, settings=self._settings, fewshot_seed=FEWSHOT_SEED)
        model.train(was_training)
        (score,) = scores.values()
        return score

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.store.pool(self.node.pool) / "tokenizer.json"))

    @cached_property
    def _settings(self) -> str:
        return settings_digest(self.node, self.evaluation, self.store)
