"""What a curriculum says in YAML, and how a mistake in it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from plans import small_run, small_stage

from davinci.config import Stage
from davinci.errors import UserError
from davinci.schedules import value_at

COSINE = {"shape": "cosine", "start": 0.1, "stop": 0.01}


def stages(**named: dict[str, Any]) -> dict[str, Stage]:
    return small_run(curriculum={"name": "c", "stages": named}).curriculum.resolved


def rate(stage: Stage, tokens: int) -> float:
    return value_at(stage.lr_pieces(), tokens)


def test_a_carried_rate_is_what_the_stage_before_was_to_end_with() -> None:
    carry = {"shape": "constant", "start": "carry"}
    found = stages(
        a=small_stage(84, lr=COSINE),  # ends with its last whole step, at 80 tokens
        b=small_stage(80, lr=carry),
        c=small_stage(80, lr={"shape": "wsd", "start": "carry", "stop": 0.001, "decay_tokens": 40}),
        d=small_stage(80, lr=carry),
    )
    assert [stage.lr.start for stage in found.values()] == [0.1, 0.01, 0.01, 0.001]
    assert rate(found["c"], 20) == 0.01 and rate(found["c"], 60) == pytest.approx(0.0055)


def test_wsd_s_goes_on_from_the_decayed_state_at_the_stable_rate() -> None:
    """arXiv 2410.05192: the next stage starts from the decayed weights, its rate again the stable one."""
    decay = {"shape": "wsd", "start": 0.1, "stop": 0.01, "decay_tokens": 16, "decay": "inverse"}
    found = stages(a=small_stage(80, lr=decay), b=small_stage(80, lr=decay))
    assert rate(found["a"], 72) == pytest.approx(2 / (1 / 0.1 + 1 / 0.01))
    assert rate(found["b"], 0) == 0.1


def test_inverse_sqrt_with_a_cooldown() -> None:
    lr = {"shape": "inverse_sqrt", "start": 0.1, "stop": 0.0, "warmup_tokens": 8, "decay_tokens": 16}
    stage = stages(a=small_stage(80, lr=lr))["a"]
    assert rate(stage, 4) == pytest.approx(0.05)
    assert rate(stage, 32) == pytest.approx(0.1 * (8 / 32) ** 0.5)
    assert rate(stage, 72) == pytest.approx(rate(stage, 64) / 2)
    assert rate(stage, 80) == 0.0


def test_a_free_form_rate() -> None:
    pieces = [
        {"from_tokens": 0, "to_tokens": 16, "kind": "linear", "start": 0.0, "stop": 0.1},
        {"from_tokens": 16, "to_tokens": 40, "kind": "constant", "start": 0.1},
        {"from_tokens": 40, "kind": "exponential", "start": 0.05, "stop": 0.005},
    ]
    stage = stages(a=small_stage(80, lr={"shape": "pieces", "pieces": pieces}))["a"]
    assert [rate(stage, tokens) for tokens in (8, 16, 40)] == [0.05, 0.1, 0.05]
    assert rate(stage, 60) == pytest.approx(0.05 * 10**-0.5)


FIRST = {"from_tokens": 0, "to_tokens": 16, "kind": "constant", "start": 0.1}


def pieces(*later: dict[str, Any]) -> dict[str, Any]:
    return {"lr": {"shape": "pieces", "pieces": [FIRST, *later]}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (pieces(), "lr.pieces leave a gap after lr.pieces.0: no learning rate from token 16 to 80"),
        (
            pieces({"from_tokens": 24, "kind": "constant", "start": 0.1}),
            "lr.pieces leave a gap between lr.pieces.0 and lr.pieces.1: no learning rate from token 16 to 24",
        ),
        (
            pieces({"from_tokens": 8, "kind": "constant", "start": 0.1}),
            "lr.pieces overlap between lr.pieces.0 and lr.pieces.1: two learning rates from token 8 to 16",
        ),
        (
            {"lr": {"shape": "pieces", "pieces": [FIRST | {"from_tokens": 8, "to_tokens": None}]}},
            "lr.pieces leave a gap before lr.pieces.0: no learning rate from token 0 to 8",
        ),
        (
            pieces({"from_tokens": 16, "to_tokens": 88, "kind": "constant", "start": 0.1}),
            "lr.pieces.1.to_tokens 88 is past the end of the stage (80 tokens)",
        ),
        ({"lr": {"shape": "constant"}}, "shape constant needs start, a rate or carry"),
        ({"lr": {"shape": "constant", "start": "carry"}}, "carry has nothing to carry, since it is the first stage"),
        ({"lr": COSINE | {"shape": "inverse_sqrt"}}, "inverse_sqrt goes to stop over decay_tokens, which are 0"),
        ({"lr": {"shape": "inverse_sqrt", "start": 0.1}}, "needs timescale_tokens, or warmup_tokens"),
        (
            {"lr": COSINE | {"shape": "wsd", "stop": 0.0, "decay_tokens": 8, "decay": "inverse"}},
            "decay inverse never reaches 0; stop must be positive",
        ),
        ({"lr": COSINE | {"decay": "sqrt"}}, "decay sqrt needs decay_tokens"),
        (
            {"batch_size": [{"from_tokens": 8, "sequences": 2}]},
            "batch_size leaves a gap: no batch size from token 0 to 8",
        ),
        (
            {"batch_size": [{"from_tokens": 0, "sequences": 2}, {"from_tokens": 0, "sequences": 4}]},
            "batch_size.1.from_tokens 0 must be past 0, where the size before begins",
        ),
        ({"averages": {"kind": "ema"}}, "half_life_tokens belongs to kind ema, and ema needs it"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_stage(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        stages(a=small_stage(80, **changes))
    assert said in str(told.value)
    assert str(told.value).startswith("curriculum") and ".a" in str(told.value) and "\n" not in str(told.value)


def test_an_average_is_not_carried_into_another_kind() -> None:
    ema = {"kind": "ema", "half_life_tokens": 8}
    with pytest.raises(
        UserError, match=r"stages\.b\.averages\.state: carry, but the stage before averages by ema, not p"
    ):
        stages(a=small_stage(80, averages=ema), b=small_stage(80, averages={"kind": "polyak"}))
    stages(a=small_stage(80, averages=ema), b=small_stage(80, averages={"kind": "polyak", "state": "reset"}))
