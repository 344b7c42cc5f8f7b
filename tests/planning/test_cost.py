"""What a plan costs, against sums by hand: two arms share 640 tokens in steps of 32, then train 320 of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import FACTOR, make_sweep

from davinci.accounting.accelerators import peak_flops
from davinci.accounting.flops import forward_flops_per_token, train_flops_per_token
from davinci.accounting.shapes import parameters
from davinci.accounting.storage import checkpoint_bytes
from davinci.planning import cost as costs
from davinci.planning.build import build_plan
from davinci.planning.cost import Job, Probe, Shape, cost, evaluation_flops, makespan, shapes


@pytest.fixture
def priced(make_run, card):
    """``priced(seeds, arms={label: changes}, probe=…)``: a sweep and its plan; arms part in the second stage."""

    def make(seeds=(0,), changes=None, arms=None, probe=None, **declared):
        configs = {}
        for place, (label, own) in enumerate((arms or {"A": {}, "B": {}}).items()):
            share = 0.5 + place / 8
            mixture = {f"{FACTOR}.domains": {"general": 1 - share, "qa": share}}
            configs[label] = make_run({**mixture, **(changes or {}), **own}, seeds_from="second")
        sweep = make_sweep(configs, seeds=seeds, placed=frozenset({"cluster"}), **declared)
        return sweep, build_plan(sweep, cards={"small": card}, probe=probe, warn_only=True)

    return make


SIZED = {"evaluation.benchmarks.cloze.items": 10, "evaluation.benchmarks.cloze.tokens_per_item": 20}


def rate(cluster):
    return peak_flops(cluster.gpu) * cluster.mfu


def test_hours_are_flops_at_the_peak_times_mfu(priced):
    sweep, plan = priced(seeds=(0, 1))
    hours = plan.cost.gpu_hours
    speed = rate(sweep.baseline.config.cluster) * 3600
    assert hours.unshared == pytest.approx(plan.flops_unshared / speed)
    assert hours.shared == hours.left == pytest.approx(plan.flops / speed)
    assert plan.flops == pytest.approx(plan.flops_unshared * (640 + 4 * 320) / (4 * 960))
    assert plan.cost.mfu == 0.5 and not plan.cost.mfu_measured


def test_what_is_done_costs_nothing_more(priced):
    sweep, plan = priced()
    trunk = plan.runs[0].nodes[0]
    left = cost(sweep, plan.runs, plan.nodes, frozenset({trunk}), None)
    assert left.gpu_hours.left == pytest.approx(plan.cost.gpu_hours.shared * 640 / 1280)
    assert left.gpu_hours.shared == plan.cost.gpu_hours.shared
    assert left.days.left < left.days.shared
    everything = cost(sweep, plan.runs, plan.nodes, frozenset(plan.nodes), None)
    assert everything.gpu_hours.left == everything.days.left == 0.0


def test_accelerators_of_a_job_share_its_time(priced):
    _, one = priced()
    _, eight = priced(changes={"cluster.gpus": 8})
    assert eight.cost.gpu_hours == one.cost.gpu_hours
    assert eight.cost.days.shared == pytest.approx(one.cost.days.shared / 8)


def test_jobs_wait_for_their_parents_and_for_a_place(priced):
    sweep, plan = priced(
        changes={"cluster.max_parallel": 2, "cluster.kind": "slurm", "evaluation.heldout_sequences": 1}
    )
    _, narrow = priced(changes={"cluster.max_parallel": 1, "cluster.kind": "slurm", "evaluation.heldout_sequences": 1})
    heldout = 3 * 16 * forward_flops_per_token(sweep.baseline.config.model, 64, 16)
    trunk, branch = 640 * _per_token(sweep) + heldout, 320 * _per_token(sweep) + 2 * heldout
    speed = rate(sweep.baseline.config.cluster) * 86400
    assert plan.cost.days.shared == pytest.approx((trunk + branch) / speed)
    assert narrow.cost.days.shared == pytest.approx((trunk + 2 * branch) / speed)
    assert plan.cost.days.unshared == pytest.approx((trunk + branch) / speed)
    assert narrow.cost.days.unshared == pytest.approx(2 * (trunk + branch) / speed)


def _per_token(sweep):
    return train_flops_per_token(sweep.baseline.config.model, 64, 16)


def test_a_price_where_every_cluster_has_one(priced):
    _, plan = priced(changes={"cluster.price": 2.0})
    assert plan.cost.price.shared == pytest.approx(2 * plan.cost.gpu_hours.shared)
    _, mixed = priced(arms={"A": {"cluster.price": 2.0}, "B": {}})
    assert mixed.cost.price is None


def test_arms_on_different_accelerators(priced):
    sweep, plan = priced(arms={"A": {"cluster.gpu": "h100"}, "B": {"cluster.gpu": "a100", "cluster.gpus": 2}})
    assert plan.cost.gpu == "h100 + a100" and plan.cost.gpus == 2
    assert plan.cost.mfu == 0.5
    flops = _per_token(sweep)
    hours = (960 * flops / peak_flops("h100") + 320 * flops / peak_flops("a100")) / 0.5 / 3600  # the trunk is A's
    assert plan.cost.gpu_hours.shared == pytest.approx(hours)


def test_evaluation_of_each_state_once(priced):
    sweep, plan = priced(changes=SIZED)
    run = sweep.baseline.config
    once = 10 * 20 * forward_flops_per_token(run.model, 64, 20)
    heldout = 3 * 4 * 16 * forward_flops_per_token(run.model, 64, 16)
    # Each arm at 96 and 320 tokens of its own stage; held-out losses at the trunk's end too.
    assert plan.cost.evaluation_flops == pytest.approx(4 * once + 5 * heldout)
    assert plan.cost.evaluation_gpu_hours == pytest.approx(plan.cost.evaluation_flops / rate(run.cluster) / 3600)


def test_a_limit_caps_the_items(priced):
    sweep, _ = priced(changes={**SIZED, "evaluation.limit": 4})
    evaluation = sweep.baseline.config.evaluation
    whole = evaluation.model_copy(update={"limit": None})
    model = sweep.baseline.config.model
    assert evaluation_flops(model, 64, evaluation) == pytest.approx(0.4 * evaluation_flops(model, 64, whole))


def test_a_benchmark_of_unknown_size(priced):
    _, plan = priced()
    assert plan.cost.evaluation_flops is None and plan.cost.evaluation_gpu_hours is None


def test_disk(priced):
    sweep, plan = priced(changes=SIZED)
    assert plan.cost.checkpoint_bytes == 5 * checkpoint_bytes(sweep.baseline.config.model, 64)
    assert plan.cost.record_bytes > 0


def test_experts_are_told_from_what_is_active_and_their_rows_are_longer(priced):
    plain = priced(changes=SIZED)[1].cost
    sweep, plan = priced(changes={**SIZED, "model.experts": {"count": 8, "chosen": 2}})
    model = sweep.baseline.config.model
    assert plan.cost.parameters == (parameters(model, 64),) > plan.cost.active_parameters
    assert plain.active_parameters == plain.parameters
    assert plan.cost.record_bytes > plain.record_bytes + 200


def test_probes_and_averages_are_priced(priced):
    """A run of 960 tokens has passes at 0, 320, 640 and 960; the trunk's are shared."""
    plain = priced(changes=SIZED)[1].cost
    sweep, plan = priced(changes={**SIZED, "evaluation.probes": {"every_tokens": 320}})
    probed = plan.cost
    passes = sum(len(node.probed_at(320)) for node in plan.nodes.values())
    once = costs.probe_flops(next(iter(plan.nodes.values())))
    assert passes >= 4 and once > 0
    assert probed.evaluation_flops == pytest.approx(plain.evaluation_flops + passes * once)
    assert probed.record_bytes > plain.record_bytes and probed.days.shared > plain.days.shared
    _, averaged = priced(changes={**SIZED, "curriculum.stages.first.averages": {"kind": "polyak"}})
    more = averaged.cost.checkpoint_bytes - plain.checkpoint_bytes
    assert more == 4 * parameters(sweep.baseline.config.model, 64)  # the trunk's one checkpoint
    assert averaged.cost.evaluation_flops > plain.evaluation_flops


def test_a_record_is_written_as_often_as_training_does():
    from davinci.training.loop import RECORD_EVERY

    assert costs.RECORD_EVERY == RECORD_EVERY


def test_shapes_of_a_stage_whose_batch_grows(priced):
    batch = [{"from_tokens": 0, "sequences": 1}, {"from_tokens": 64, "sequences": 2}]
    _, plan = priced(changes={"curriculum.stages.first.batch_size": batch})
    node = plan.nodes[plan.runs[0].nodes[0]]
    assert shapes(node) == {Shape(node.model, 16, 1): 4, Shape(node.model, 16, 2): 18}


def test_a_probe_replaces_the_clusters_mfu(priced):
    sweep, plan = priced(changes=SIZED)
    model = sweep.baseline.config.model
    key = (model, sweep.baseline.config.evaluation.key)
    probe = Probe(
        workers=1,
        steps=9,
        step={Shape(model, 16, 2): 0.5},
        checkpoint={model: 3.0},
        evaluation={key: 7.0},
        start=11.0,
        node=1.0,
    )
    _, plan = priced(changes=SIZED, probe=probe)
    assert plan.cost.gpu_hours.shared == pytest.approx(40 * 0.5 / 3600)
    assert plan.cost.mfu_measured
    assert plan.cost.mfu == pytest.approx(plan.flops / peak_flops("cpu_core") / (40 * 0.5))
    assert plan.cost.evaluation_gpu_hours == pytest.approx((5 * 3 + 4 * 7) / 3600)
    alone = 30 * 0.5 + 3 * 3 + 2 * 7 + 2  # steps, checkpoints, evaluations, nodes of one run
    assert plan.cost.days.unshared * 86400 == pytest.approx(11 + 2 * alone)
    assert plan.cost.days.shared * 86400 == pytest.approx(11 + 40 * 0.5 + 5 * 3 + 4 * 7 + 3)


def test_a_shape_that_was_not_measured_runs_at_the_measured_rate(priced):
    sweep, _ = priced()
    model = sweep.baseline.config.model
    probe = Probe(workers=1, steps=9, step={Shape(model, 16, 1): 0.25}, checkpoint={}, evaluation={}, start=0, node=0)
    _, plan = priced(probe=probe)
    assert plan.cost.gpu_hours.shared == pytest.approx(40 * 0.5 / 3600)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 8)), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_no_schedule_beats_the_bounds(drawn, parallel):
    jobs = [
        Job(str(place), None if after < 0 or after >= place else str(after), float(seconds))
        for place, (seconds, after) in enumerate(drawn)
    ]
    finish = {}
    for job in jobs:
        finish[job.name] = job.seconds + (finish[job.after] if job.after else 0.0)
    lower = max(*finish.values(), sum(job.seconds for job in jobs) / parallel)
    assert lower - 1e-9 <= makespan(jobs, parallel) <= (2 - 1 / parallel) * lower + 1e-9
    assert makespan(jobs, len(jobs)) == pytest.approx(max(finish.values()))


def test_a_worker_starts_once():
    jobs = [Job("trunk", None, 10.0), Job("left", "trunk", 4.0), Job("right", "trunk", 4.0), Job("done", None, 0.0)]
    assert makespan(jobs, 1, start=3.0) == 3 + 18
    assert makespan(jobs, 2, start=3.0) == 3 + 10 + 3 + 4  # the second is taken on when the branches are ready
    assert makespan([], 2, start=3.0) == 0.0
