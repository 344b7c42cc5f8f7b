"""`launch.py` as people call it: what is Hydra's works, a mistake is one line, a plan is written and nothing else."""

import json
import shutil
from pathlib import Path

import pytest

PAPER = ["-m", "sweep=qa_ratio_stage2_2", "scale=paper", "plan_only=true"]  # needs no pool


def one_error(done, message):
    """Exit status 2 and one line that begins with `message`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=tiny"], "error: command line: modle: unknown key; nearest: model"),
        (["model=tinny"], "error: command line: conf/model has no 'tinny'; nearest: tiny"),
        (["model=null"], "error: command line: model=null: model takes one of its choices: 20m, 3b, 60m, 6m, ladder, "),
        (
            ["model/norm=[rmsnorm,layernorm]"],
            "error: command line: model/norm=[rmsnorm,layernorm]: model/norm takes",
        ),
        (
            ["model/atention=mha"],
            "error: command line: model/atention=mha: no group model/atention; nearest: model/",
        ),
        (["-m", "model.mixers.pattern.x=1"], "error: command line: model.mixers.pattern.x: unknown key; what is above"),
        (["--plan-only"], "error: no option --plan-only; known: --cfg, "),
        (["audit=off"], "error: command line: audit: Input should be 'strict' or 'warn' (got \"off\")"),
        (["plan_only=yes"], "error: command line: plan_only: Input should be a valid boolean"),
        (["max_epochs=0", "plan_only=true"], "error: command line: max_epochs: Input should be greater than 0"),
        (["-m", "probe=true"], "error: command line: probe=true measures instead of launching; add plan_only=true"),
        (["model.layers=${modle.x}"], "error: command line: Interpolation key 'modle.x' not found"),
        (["seed=${trunk_seed}"], "error: command line: a cyclic interpolation"),
        (["model.layers=???"], "error: command line: model.layers: left unset (???)"),
        (["depth=l1,l2"], "error: command line: Ambiguous value for argument 'depth=l1,l2'"),
        (["-m", "--cfg", "job"], "error: command line: Only one of --run, --multirun, --cfg"),
        (["-m", "sweep=nosuch"], "error: sweep=nosuch: no sweeps/nosuch.yaml"),
        (["-m", "sweep=../conf"], "error: sweep '../conf' cannot name a folder"),
        (["sweep=template"], "error: command line: sweep=template is a sweep; add -m"),
        (["-m", "depth=l1,l9"], "error: command line: conf/depth has no 'l9'; nearest: l5, l4, l3"),
        (["-m", "depth=interval(1,2)"], "error: command line: depth=interval(1,2): a sweep needs values"),
        (["store=launch.py/x"], "error: store=launch.py/x: cannot write there"),
        (["-m", "depth=l1,l2", "store=launch.py/x", "plan_only=true"], "error: store=launch.py/x: cannot write there"),
        (["-m", "sweep=template", "model.layers=1,2", "audit=strict", "optimizer.betta=1"], "error: command line: opt"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(launch, tmp_path, arguments, message):
    store = tmp_path / "deep" / "store"
    named = any(argument.startswith("store=") for argument in arguments)
    done = launch(*arguments, *([] if named else [f"store={store}"]))
    one_error(done, message)
    assert done.stdout == ""
    assert not any(tmp_path.iterdir())


def test_one_run_too_heeds_the_choice_of_a_variant_or_says_so(launch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stated.yaml").write_text("defaults: [tiny, _self_]\nwindow: {tokens: 64}\n")
    asked = ["model=stated", "model/window=full", f"store={tmp_path / 'store'}", "plan_only=true"]
    done = launch(*asked, f"hydra.searchpath=[file://{tmp_path}]")
    one_error(done, "error: command line: model/window=full: conf/model/stated.yaml comes after it and states")


def test_a_refused_sweep_writes_nothing_and_builds_no_pool(launch, tmp_path):
    done = launch("-m", "model.layers=1,1.0", f"store={tmp_path / 'store'}")
    one_error(done, "error: command line: model.layers: Input should be a valid integer")
    done = launch("-m", "sweep=qa_ratio_stage2_2", "curriculum.stages.s2_2.tokens=5", f"store={tmp_path / 'store'}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    done = launch("-m", "depth=glob(l1)", f"store={tmp_path / 'store'}")
    one_error(done, "error: the sweep is not controlled: factor key depth is changed by no arm")
    assert not any(tmp_path.iterdir())
    done = launch("-m", "depth=glob(l1)", "audit=warn", "plan_only=true", f"store={tmp_path / 'store'}")
    assert done.returncode == 0, done.stderr
    (plan,) = (tmp_path / "store" / "sweeps").glob("*/plan.json")
    assert "warned" in {finding["level"] for finding in json.loads(plan.read_text())["audit"]["findings"]}


def test_a_plan_before_the_pool_is_built_is_provisional(launch, tmp_path):
    done = launch("plan_only=true", f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "ids are provisional" in " ".join(done.stdout.split())


def test_planning_alone_leaves_the_launched_plan_alone(launch, tmp_path):
    folder = tmp_path / "sweeps" / "qa_ratio_stage2_2"
    done = launch(*PAPER, f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    plan = json.loads((folder / "plan.json").read_text())
    assert len(plan["runs"]) == 9 and plan["audit"]["findings"]
    assert {"arms", "seeds", "nodes", "tokens_shared", "tokens_unshared", "flops", "epochs", "audit"} <= plan.keys()
    launched = (folder / "plan.json").rename(folder / "launched.json").read_text()
    done = launch("--multirun", *PAPER[1:], f"store={tmp_path}", "seed=range(2)")
    assert done.returncode == 0, done.stderr
    assert (folder / "launched.json").read_text() == launched != (folder / "plan.json").read_text()


def test_a_sweep_that_cannot_run_here_says_so_and_writes_nothing(launch, tmp_path):
    done = launch(*PAPER[:-1], f"store={tmp_path / 'store'}")
    one_error(done, "error: pool davinci: 27 sources are not on this machine")
    assert not any(tmp_path.iterdir())


def test_a_suite_is_planned_as_one_tree(launch, tmp_path):
    done = launch("-m", "sweep=paper", "scale=paper", "plan_only=true", f"store={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "sweeps").iterdir()] == ["paper"]
    plan = json.loads((tmp_path / "sweeps" / "paper" / "plan.json").read_text())
    assert len(plan["studies"]) == 11
    assert plan["tokens_shared"] < sum(study["tokens_shared"] for study in plan["studies"])


DEPTHS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/depth").glob("*.yaml"))


def test_hydra_shows_a_run(launch):
    config = launch("--cfg", "job", "scale=paper", "--resolve", "--package", "model")
    assert config.returncode == 0 and "layers: 36" in config.stdout
    info = launch("--info", "defaults")
    assert info.returncode == 0 and "mixture/qa70" in info.stdout
    told = launch("--help")
    assert told.returncode == 0 and f"depth: {', '.join(DEPTHS)}" in told.stdout


@pytest.mark.parametrize(
    ("typed", "offered"), [("depth=", " ".join(f"depth={one}" for one in DEPTHS)), ("mod", "model model.")]
)
def test_the_shell_completes(launch, typed, offered):
    done = launch("-sc", "query=bash", COMP_LINE=f"python launch.py {typed}")
    assert done.stdout.split() == offered.split()


@pytest.mark.parametrize("depth", ["l1,mixed", "glob(*)"])
def test_a_folder_of_ones_own_adds_options(launch, tmp_path, depth):
    (tmp_path / "own" / "depth").mkdir(parents=True)
    (tmp_path / "own" / "depth" / "mixed.yaml").write_text("{general: L1, code: L2, science: L1, qa: null}")
    path = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    done = launch("-m", f"depth={depth}", path, "plan_only=true", f"store={tmp_path / 'store'}")
    assert done.returncode == 0, done.stderr
    (plan,) = (tmp_path / "store" / "sweeps").glob("*/plan.json")
    arms = {arm["label"]: arm["config"] for arm in json.loads(plan.read_text())["arms"]}
    assert arms["depth=mixed"]["depth"]["code"] == "L2"


def test_editing_a_group_file_moves_exactly_the_runs_it_is_in(launch, repository, tmp_path):
    for name in ("conf", "sweeps", "hydra_plugins", "davinci"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "launch.py", tmp_path)

    store = tmp_path / "store"
    folder = store / "sweeps" / "qa_ratio_stage2_2"

    def planned():
        done = launch(*PAPER, "store=store", at=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "plan.json").read_text())

    def runs():
        return {(run["arm"], run["seed"]): (run["id"], run["nodes"]) for run in planned()["runs"]}

    before = runs()
    (folder / "plan.json").rename(folder / "launched.json")
    for _, nodes in before.values():
        for node in nodes:
            (store / "nodes" / node).mkdir(parents=True, exist_ok=True)
            (store / "nodes" / node / "done.json").touch()
    mixture = tmp_path / "conf" / "mixture" / "qa50.yaml"
    text = mixture.read_text()
    assert "general: 0.314" in text and "science: 0.1425" in text
    mixture.write_text(text.replace("0.314", "0.313").replace("0.1425", "0.1435"))
    after = runs()
    moved = {cell for cell in before if before[cell] != after[cell]}
    assert moved == {("QA-50%", seed) for seed in (0, 1, 2)}
    for cell in moved:  # the trunk is what it was
        assert before[cell][1][:-1] == after[cell][1][:-1]
    orphans = planned()["orphans"]
    assert {(orphan["arm"], orphan["seed"]) for orphan in orphans} == moved
    assert all("curriculum.stages.s2_2.mixture.domains.general: 0.314 -> 0.313" in one["diff"] for one in orphans)
    mixture.write_text("# a comment changes nothing\n" + text)
    assert runs() == before
    assert planned()["orphans"] == []
