"""The paper's figures of a fabricated store: what they plot is what the records say, and what they lack is named."""

from __future__ import annotations

import csv
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_store import fabricate
from hypothesis import given
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.commands.figure import _function
from analysis.figures import FIGURES, PUBLISHED
from analysis.figures.drawing import composed
from analysis.figures.look import style
from analysis.figures.panel import spread
from analysis.figures.plot import Asked, Options, Plot
from analysis.load import Sweep, load
from analysis.panels import COLOURS, LIGHT_COLOURS
from analysis.samples import Grid
from davinci.errors import UserError
from davinci.store import Store, read_json, write_json
from davinci.tracking import records

LAST = 1_342_400
TRUNK_END = 1_240_000
PLAIN = {"text": "?", "hypothesis": None, "paper": None}


def relabelled(store: Store, stages: dict[str, str]) -> Store:
    """The store with other names of stages."""
    path = store.sweep("qa_ratio") / "launched.json"
    text = path.read_text()
    for old, new in stages.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    path.write_text(text)
    return store


def asked(store: Store, number: str, **options: Any) -> Asked:
    sweep, grid = _loaded(store.root, (store.sweep("qa_ratio") / "launched.json").stat().st_mtime_ns)
    return Asked(number, sweep, grid, Options(**options))


@cache
def _loaded(root: Path, changed: int) -> tuple[Sweep, Grid]:
    sweep = load(Store(root), "qa_ratio")
    return sweep, Grid(sweep)


def plot(store: Store, number: str, **options: Any) -> Plot:
    made: Plot = _function("figure", number)(asked(store, number, **options))
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fabricate(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same, its last two stages called as those of stage 1 are."""
    return relabelled(fabricate(tmp_path_factory.mktemp("stage_1")), {"s2_1": "s1_2", "s2_2": "s1_3"})


WAYS = [(number, "side") for number in FIGURES] + [(number, way) for number in PUBLISHED for way in ("overlay", "none")]


@pytest.mark.parametrize(("number", "paper"), WAYS)
def test_every_figure_has_data_behind_it(whole: Store, stage_1: Store, number: str, paper: Any) -> None:
    made = plot(stage_1 if number in ("4", "8") else whole, number, paper=paper)
    assert made.number == number and made.panels and made.notes
    assert len({tuple(row) for row in made.data}) == 1  # the same keys in every row
    lines = [line for panel in made.panels for line in panel.lines]
    assert all(np.isfinite(line.mean).all() and (line.low <= line.high).all() for line in lines)
    if number in PUBLISHED and number not in ("3", "9", "13"):  # whose arms are not those published
        assert any(line.published for line in lines) is (paper != "none")


@pytest.mark.parametrize("number", FIGURES)
def test_every_figure_is_drawn(whole: Store, stage_1: Store, number: str) -> None:
    made = plot(stage_1 if number in ("4", "8") else whole, number)
    with style():
        figure = composed(made.panels, made.columns, "a stamp", made.notes, made.size, made.heights)
        figure.canvas.draw()
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        edge = figure.bbox
    for box in boxes:  # nothing is clipped, nothing lies on another panel
        assert box.x0 >= edge.x0 and box.x1 <= edge.x1 and box.y0 >= edge.y0 and box.y1 <= edge.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def recorded(store: Store, node: str, tokens: int, domain: str) -> float:
    rows = records.read(store.records(node), "evaluation")
    return 100 * float(np.mean([row["score"] for row in rows if row["tokens"] == tokens and row["domain"] == domain]))


def test_a_gain_is_that_of_the_records(whole: Store) -> None:
    """An arm's last score minus its own at the fork, seed by seed."""
    gains = [
        recorded(whole, f"s2_2-v1-dose1.0-seed{seed}", LAST, "science")
        - recorded(whole, f"s2_1-v1-seed{seed}", TRUNK_END, "science")
        for seed in range(3)
    ]
    (science,) = [panel for panel in plot(whole, "7").panels if panel.title == "Science"]
    (line,) = [line for line in science.lines if line.label == "QA-70%"]
    assert line.x.tolist() == [TRUNK_END, 1_260_480, 1_301_440, LAST]
    assert line.values["gain"] == pytest.approx(np.mean(gains))
    assert line.tag == f"{np.mean(gains):+.1f} ± {line.values['gain_half_width']:.1f}"
    assert line.values["runs"] == ("dose1.0-s0", "dose1.0-s1", "dose1.0-s2")


def test_noise_is_marked(whole: Store) -> None:
    """The store was made with a large effect on science and none on general."""
    tags = {panel.title: [line.tag for line in panel.lines] for panel in plot(whole, "13").panels}
    assert tags["General"][0] == "" and all(tag.startswith("≈ ") for tag in tags["General"][1:])
    assert tags["Science"][-1].startswith("+")


def test_gains_from_one_trunk_have_all_seeds(tmp_path: Path) -> None:
    """Its one state is where each seed starts."""
    store = fabricate(tmp_path, shared_trunk=True, question=PLAIN)
    (line, *_) = plot(store, "7").panels[0].lines
    assert line.values["gain_seeds"] == 3


def test_the_share_of_qa_is_the_arms_own(whole: Store) -> None:
    panel = plot(whole, "11b", paper="overlay").panels[0]
    assert panel.lines[0].x.tolist() == pytest.approx([30, 50, 70])
    assert panel.lines[1].published and panel.lines[1].mean.tolist() == [42.0, 43.6, 44.0, 45.2, 44.8]


def test_published_gains_stand_beside_those_of_the_same_arms(tmp_path: Path) -> None:
    arms = {"Stage 1-3 (domain adjustment)": 0.0, "Stage 2 (QA introduced at 30%)": 1.0}
    store = fabricate(tmp_path, arms=arms, seeds=(0, 1), question=PLAIN)
    side = plot(store, "9").panels[-1]
    assert side.title == "Gain since the arms parted"
    assert [line.mean.tolist() for line in side.lines if line.published] == [[-0.15, 2.62, -0.24], [2.15, 20.34, 15.75]]
    over = plot(store, "9", paper="overlay").panels[1]
    dashed = [line for line in over.lines if line.published][1]
    assert dashed.mean[1] - dashed.mean[0] == pytest.approx(20.34)


def external(store: Store, name: str, protocols: tuple[str, ...] = ("ppl", "generative")) -> None:
    """A model's folder, as `davinci evaluate hf:PATH` leaves it."""
    suites = {
        f"{protocol:8.8}": {
            "benchmarks": {
                f"arithmetic_{protocol}": {
                    **{"task": f"arithmetic_{protocol}", "protocol": protocol, "metric": "acc", "num_fewshot": 0},
                    **{"score": 0.5, "items": 60, "key": "k", "truncated": 0},
                }
            }
        }
        for protocol in protocols
    }
    (store.root / "external" / name).mkdir(parents=True)
    write_json(store.root / "external" / name / "scores.json", suites)


def test_external_models_stand_beside_the_arms(tmp_path: Path) -> None:
    store = fabricate(tmp_path, arms={"only": 0.0}, seeds=(0, 1), question=PLAIN)
    with pytest.raises(UserError, match="figure 12: .*needs two models .* has only"):
        plot(store, "12")
    external(store, "SmolLM2-0123abcd")
    external(store, "half-0123abcd", ("ppl",))
    scores, gaps = plot(store, "12", paper="none").panels
    assert [name for _, name in scores.ticks][1].startswith("SmolLM2")
    ours, theirs = scores.lines[0].mean
    assert theirs == 50.0 and gaps.lines[0].mean.tolist() == pytest.approx([50.0 - ours])
    assert plot(store, "12", reference="SmolLM2-0123abcd", paper="none").panels[1].title == "Gap to SmolLM2-0123abcd"
    for options, message in (
        ({"externals": ("half",)}, "half-0123abcd: it has no score under generative"),
        ({"externals": ("SmolLM-2",)}, "no model 'SmolLM-2'; nearest: SmolLM2-0123abcd"),
        ({"reference": "SmolLM"}, "no model 'SmolLM' here; nearest: SmolLM2-0123abcd"),
    ):
        with pytest.raises(UserError, match=message):
            plot(store, "12", **options)


def test_what_arms_lack_is_said_and_the_rest_drawn(tmp_path: Path) -> None:
    gone = ["dose0.5-s0", "dose0.5-s1", "dose0.5-s2", "dose1.0-s1"]
    store = fabricate(tmp_path, without=gone, question=PLAIN)
    made = plot(store, "7")
    assert [line.label for line in made.panels[0].lines] == ["QA-30%", "QA-70%"]
    assert made.notes[-1].startswith("Missing: 84 scores of QA-50% (dose0.5-s0")


LACKS = {
    "4": "has fewer than two evaluated points in s1_1; evaluate more",
    "5": "has no grad_norm in its training rows of s1_1",
    "7": "has one arm; this figure compares arms",
    "11b": "has no two arms that differ in the share of QA (only 30%)",
}


def test_what_the_records_lack_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path, arms={"only": 0.0}, seeds=(0,), question=PLAIN)
    for path in store.root.glob("nodes/s1_1*/records.jsonl"):
        path.write_text(path.read_text().replace('"grad_norm"', '"other"'))
    for number, message in LACKS.items():
        assert main(["figure", "qa_ratio", "--store", str(tmp_path), "--figure", number]) == 2
        error = capsys.readouterr().err
        assert f"figure {number}: sweep 'qa_ratio' {message}" in error and error.count("\n") == 1
    relabelled(store, {"s1_1": "warmup", "s2_1": "stable", "s2_2": "decay"})
    assert main(["figure", "qa_ratio", "--store", str(tmp_path), "--figure", "6"]) == 2
    assert "has no stage 2 (its stages: warmup, stable, decay); name those meant" in capsys.readouterr().err
    made = plot(store, "6", stages=("stable", "decay"))
    assert len(made.panels[0].lines[0].x) == 4


MISTAKES = [
    (["--figure", "11"], "no figure '11'; one of 3, 4, "),
    (["--figure", "7", "--arms", "QA-3%"], "--arms: sweep 'qa_ratio' has no 'QA-3%'; nearest: QA-30%"),
    (["--figure", "11a", "--benchmarks", "code_nxt"], "has no 'code_nxt'; nearest: code_next"),
    (["--figure", "11a", "--benchmarks", "code_next"], "has 1 benchmarks, and a radar needs 3"),
    (["--figure", "6", "--stages", "s2_3"], "--stages: sweep 'qa_ratio' has no 's2_3'; nearest: s2_2, s2_1"),
    (["--paper", "only"], "--paper only draws no sweep"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_one_line(
    whole: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["figure", "qa_ratio", "--store", str(whole.root), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_writes_three_files_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fabricate(tmp_path, arms={"=a": 0.0, "<b>$x$": 1.0}, seeds=(0, 1), items=20, question=PLAIN)
    launched = read_json(store.sweep("qa_ratio") / "launched.json")
    finding = {"level": "warned", "text": "t"}
    write_json(
        store.sweep("qa_ratio") / "launched.json", launched | {"audit": launched["audit"] | {"findings": [finding]}}
    )
    assert main(["figure", "qa_ratio", "--store", str(tmp_path), "--figure", "7", "--figure", "5"]) == 0
    folder = store.sweep("qa_ratio") / "figures"
    assert {path.name for path in folder.iterdir()} == {
        f"figure-{number}.{ending}" for number in ("5", "7") for ending in ("pdf", "png", "csv")
    }
    assert (folder / "figure-7.pdf").read_bytes().startswith(b"%PDF")
    with (folder / "figure-7.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["line"] for row in rows} == {"'=a", "<b>$x$"} and {row["audit"] for row in rows} == {"warned"}
    ends = [row for row in rows if row["gain"]]
    assert len(ends) == 2 * 4 and all(row["runs"] and row["gain_p_adjusted"] for row in ends)


def test_published_values_alone(tmp_path: Path) -> None:
    assert main(["figure", "--paper", "only", "--figure", "12", "--out", str(tmp_path)]) == 0
    with (tmp_path / "figure-12.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {"published"}
    for number in PUBLISHED:
        assert _function("published", number)().data


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted), st.floats(0.01, 0.09))
def test_tags_keep_apart_and_in_order(places: list[float], apart: float) -> None:
    found = spread(places, apart, 0.0, 1.0)
    assert len(found) == len(places)
    assert all(after - before >= apart * 0.999 for before, after in itertools.pairwise(found))


# Machado, Oliveira and Fernandes 2009 (IEEE TVCG 15:1291), severity 1: linear RGB as it is seen.
SEEN = {
    "trichromats": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    scaled = XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_the_palette_is_told_apart_and_stands_out() -> None:
    """All pairs differ by a CIE 1976 distance of 15 or more; 3:1 on white (WCAG 1.4.11), but for those with an edge."""
    for who, matrix in SEEN.items():
        seen = [lab(np.array(matrix) @ linear(colour)) for colour in COLOURS]
        assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) >= 15, who
    for colour in COLOURS:
        contrast = 1.05 / (linear(colour) @ XYZ[1] + 0.05)
        assert bool(contrast >= 3) is (colour not in LIGHT_COLOURS)


def test_the_published_pool_is_all_there() -> None:
    (pool,) = _function("published", "3")().panels
    assert len(pool.sources) == 28 and json.dumps(pool.rows)


def test_many_arms_of_long_labels_stay_readable(tmp_path: Path) -> None:
    """22 arms whose labels begin alike: each in the legend by a name of its own, and nothing lies on anything else."""
    begin = "curriculum.stages.s2_2.mixture=qa50 optimizer.beta2=0.95 scale.peak_lr=0.0"
    labels = [f"{begin}{index:02d}" for index in range(22)]
    arms = {label: index / 21 for index, label in enumerate(labels)}
    store = fabricate(tmp_path, arms=arms, seeds=(0,), items=6, question=PLAIN)
    made = plot(store, "7")
    with style():
        drawn = composed(made.panels, made.columns, "", made.notes, made.size, made.heights)
        drawn.canvas.draw()
        legend = drawn.legends[0]
        texts = [text.get_text() for text in legend.get_texts()]
        assert len(texts) == len(set(texts)) == 22
        for axes in drawn.axes:
            assert not axes.get_tightbbox().overlaps(legend.get_window_extent())
        for one, other in itertools.combinations([axes.get_tightbbox() for axes in drawn.axes], 2):
            assert not one.overlaps(other)
