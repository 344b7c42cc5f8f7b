"""Sweeps and plans made by hand, without composition or the assembly of a plan."""

from davinci.accounting.flops import train_flops_per_token
from davinci.config import Node
from davinci.planning.audit import audit
from davinci.planning.epochs import ledger, repetitions
from davinci.planning.mixtures import PoolView
from davinci.planning.plan import Cost, Plan, PlannedRun, Spent
from davinci.planning.sweep import Arm, Question, Sweep

FACTOR = "curriculum.stages.second.mixture"


def make_sweep(configs, *, seeds=(0,), factor=(FACTOR,), name="test", overrides=None, **declared):
    """A sweep of ``{label: config}``; the first is the baseline."""
    arms = [
        Arm.model_construct(  # without validation: a mutated config need not be a valid one
            label=label,
            overrides=tuple((overrides or {}).get(label, ())),
            is_baseline=index == 0,
            config=config.model_copy(update={"arm": label, "seed": seeds[0]}),
        )
        for index, (label, config) in enumerate(configs.items())
    ]
    question = declared.pop("question", Question(text="What moves?"))
    return Sweep(name=name, question=question, arms=tuple(arms), seeds=tuple(seeds), factor=tuple(factor), **declared)


def make_runs(sweep, cards):
    """``(runs, nodes, FLOPs by arm)``: a node a stage; stages are shared by seeds up to seeds_from, and by arms as long
    as their stages are equal."""
    nodes, runs, flops = {}, [], {}
    for arm in sweep.arms:
        for seed in sweep.seeds:
            run, own, begin, path = arm.run(seed), [], 0, f"{arm.config.model}{arm.config.optimizer}"
            stages = list(run.curriculum.stages)
            parted = 0 if run.seeds_from is None else stages.index(run.seeds_from)
            for index, (stage_name, stage) in enumerate(run.curriculum.stages.items()):
                path += f"|{stage.model_dump_json()}{run.replicate}{seed if index >= parted else run.trunk_seed}"
                view = PoolView(run.pool, stage.depth, cards.get(run.pool.name))
                node_id = f"{begin}-{abs(hash(path)) % 10**9}"
                nodes[node_id] = Node.model_construct(
                    id=node_id,
                    parent=own[-1] if own else None,
                    stage_name=stage_name,
                    stage_begin=begin,
                    begin=begin,
                    end=begin + stage.grid.tokens_used,
                    stage=stage,
                    sources=view.weigh(stage.mixture, stage_name),
                    mixture_position=0,
                    initialisation_seed=0,
                    data_seed=seed,
                    model=run.model,
                    optimizer=run.optimizer,
                    pool=run.pool.name,
                    tokenizer_digest=None,
                    vocab_size=run.model.vocab_size,
                    checkpoint_every_tokens=run.checkpoint_every_tokens,
                )
                own.append(node_id)
                begin = nodes[node_id].end
            runs.append(PlannedRun(id=f"{arm.label}-{seed}", arm=arm.label, seed=seed, nodes=tuple(own), points=()))
            per_token = train_flops_per_token(run.model, run.model.vocab_size, 16)
            flops[arm.label] = begin * per_token
    return runs, nodes, flops


def audited(sweep, cards, warn_only=False):
    """The audit of a sweep."""
    runs, nodes, flops = make_runs(sweep, cards)
    return audit(sweep, runs, nodes, flops, cards, ledger(sweep, cards), warn_only)


def make_plan(sweep, cards, **fields):
    """A plan of a sweep, its costs invented."""
    runs, nodes, flops = make_runs(sweep, cards)
    rows = ledger(sweep, cards)
    alone = sum(nodes[run.nodes[-1]].end for run in runs)
    shared = sum(node.end - node.begin for node in nodes.values())
    cost = Cost(
        gpu="h100",
        gpus=8,
        mfu=0.4,
        mfu_measured=False,
        parallel=4,
        gpu_hours=Spent(unshared=123456.0, shared=45678.9, left=0.123),
        days=Spent(unshared=160.8, shared=60.2, left=0.01),
        price=Spent(unshared=246912.0, shared=91357.8, left=0.25),
        evaluation_flops=1.2e20,
        evaluation_gpu_hours=84.2,
        parameters=(3_090_000_000,),
        checkpoint_bytes=12_400_000_000_000,
        record_bytes=31_000_000,
    )
    made = {
        "sweep": sweep.name,
        "question": sweep.question,
        "arms": sweep.arms,
        "seeds": sweep.seeds,
        "runs": tuple(runs),
        "nodes": nodes,
        "tokens_unshared": alone,
        "tokens_shared": shared,
        "tokens_left": shared,
        "flops_unshared": 1.5e24,
        "flops": 5.1e23,
        "flops_left": 5.1e23,
        "audit": audit(sweep, runs, nodes, flops, cards, rows),
        "epochs": rows,
        "warnings": repetitions(rows, 4),
        "cost": cost,
        "power": None,
        "orphans": (),
        "missing_sources": (),
    }
    return Plan.model_construct(**(made | fields))
