"""HumanEval, EvalPlus and MBPP: programs that the model wrote, run with their tests in the sandbox.

lm-eval's own metric is loaded from a hub and runs them in its own process; prompts, examples and what is run are
lm-eval's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from davinci import sandbox
from davinci.errors import UserError
from davinci.evaluation.lm_eval_source import definitions

Responses = Sequence[Sequence[str]]
Document = Mapping[str, Any]


def permitted(config: dict[str, Any], run_code: str) -> dict[str, Any]:
    """The config of a task that runs code, told how it may.

    Raises:
        UserError: it may not.
    """
    refuse_code(config, run_code)
    filters = [
        {**one, "filter": [_with_isolation(step, run_code) for step in one["filter"]]} for one in config["filter_list"]
    ]
    return {**config, "filter_list": filters}


def refuse_code(config: Mapping[str, Any], run_code: str) -> None:
    """Refuse a task that runs code without leave, and those of lm-eval that would not run it in the sandbox."""
    if not config.get("unsafe_code"):
        return
    if run_code == "refuse":
        raise UserError(
            f"evaluation.run_code: task {config['task']} runs programs that the model wrote; set "
            "evaluation.run_code=isolated to run them in a sandbox (docs/evaluation.md says what it keeps them from)"
        )
    steps = [
        step["filter_fn"] for one in config.get("filter_list") or [] for step in one["filter"] if "filter_fn" in step
    ]
    if not any(__name__ in (str(step).rpartition(".")[0], getattr(step, "__module__", None)) for step in steps):
        ours = "humaneval, humaneval_plus and mbpp"
        raise UserError(f"task {config['task']}: lm-eval would run its programs without a sandbox; {ours} run in one")


def _with_isolation(step: Mapping[str, Any], run_code: str) -> dict[str, Any]:
    if "filter_fn" not in step:
        return dict(step)
    return {**step, "filter_fn": partial(step["filter_fn"], isolation=run_code)}


def run_completions(responses: Responses, documents: Sequence[Document], isolation: Any) -> list[list[str]]:
    """HumanEval: how each completion of its prompt ended (a kind of `sandbox.KINDS`)."""
    ends = [f"{document['test']}\ncheck({document['entry_point']})" for document in documents]
    programs = [
        [f"{document['prompt']}{text}\n{end}" for text in texts]
        for texts, document, end in zip(responses, documents, ends, strict=True)
    ]
    return _outcomes(programs, isolation)


def run_programs(responses: Responses, documents: Sequence[Document], isolation: Any) -> list[list[str]]:
    """MBPP: how each program ended that was written for its first three tests."""
    ends = ["\n".join(document["test_list"][:3]) for document in documents]
    return _outcomes(
        [[f"{text}\n{end}" for text in texts] for texts, end in zip(responses, ends, strict=True)], isolation
    )


def _outcomes(programs: list[list[str]], isolation: sandbox.Isolation) -> list[list[str]]:
    kinds = iter([outcome.kind for outcome in sandbox.run_all([one for row in programs for one in row], isolation)])
    return [[next(kinds) for _ in row] for row in programs]


def humaneval_results(document: Document, results: list[str]) -> dict[str, Any]:
    """One item's score and how its program ended."""
    return {"pass@1": float(results[0] == "passed"), "outcome": results[0]}


def mbpp_results(document: Document, results: list[str]) -> dict[str, Any]:
    """One item's score and how its program ended, under lm-eval's name for it."""
    return {"pass_at_1": float(results[0] == "passed"), "outcome": results[0]}


def counts(outcomes: Sequence[str]) -> dict[str, int]:
    """How often each kind of end was met."""
    return dict(sorted(Counter(outcomes).items()))


def mbpp_examples() -> list[dict[str, Any]]:
    """MBPP's three prompting problems, as lm-eval has them."""
    examples: list[dict[str, Any]] = definitions("mbpp/utils.py")["list_fewshot_samples"]()
    return examples
