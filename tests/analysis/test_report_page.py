"""The page as a reader meets it: in a real browser, clicked, narrow, with planted names; and the index over sweeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import BINARY, Chromium
from fabricated_store import QUESTION, fabricate, with_routers

from analysis.__main__ import main
from analysis.findings import study
from analysis.ledger import sweep_card
from analysis.report import page
from analysis.report.charts import MOST, charts
from analysis.report.index import Summary, summary, write_index
from analysis.report.page import embedded
from davinci.store import Store, read_json, write_json, write_text

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>'\"&"
TWO = {"QA-30%": 0.0, "QA-70%": 1.0}
in_browser = pytest.mark.skipif(BINARY is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sweep with a run that failed, one of planted names, and one that has no report."""
    made = fabricate(tmp_path_factory.mktemp("page"), without=["dose1.0-s2"])
    error = {"state": "failed", "error": "UserError: loss nan at step 9", "log": "x"}
    write_json(made.jobs("qa_ratio") / "s2_2-v1-dose1.0-seed2.failed.json", error)
    hypothesis = {**QUESTION["hypothesis"], "text": EVIL, "arm": EVIL}
    question = QUESTION | {"text": EVIL, "hypothesis": hypothesis, "assumptions": [EVIL]}
    other = fabricate(
        tmp_path_factory.mktemp("evil"),
        sweep="planted",
        arms={"=1+1": 0.0, EVIL: 1.0},
        seeds=(0, 1),
        items=8,
        question=question,
    )
    path = other.sweep("planted") / "launched.json"
    plan = json.loads(path.read_text().replace('"qa_text"', json.dumps(EVIL)))
    write_json(made.sweep("planted") / "launched.json", plan)
    for folder in (other.root / "nodes").iterdir():
        if not (made.root / "nodes" / folder.name).exists():
            shutil.copytree(folder, made.root / "nodes" / folder.name)
    bare = made.sweep("unreported") / "launched.json"
    write_json(bare, read_json(made.sweep("qa_ratio") / "launched.json") | {"sweep": "unreported"})
    for name in ("qa_ratio", "planted"):
        found = study(made, name)
        card = sweep_card(found)
        write_text(made.sweep(name) / "report" / "report.html", page(found, card))
        write_text(made.sweep(name) / "report" / "summary.json", summary(found, card).model_dump_json())
    write_index(made)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as found:
        yield found


def report(store: Store, name: str = "qa_ratio") -> Path:
    return store.sweep(name) / "report" / "report.html"


@in_browser
def test_it_draws_and_the_console_is_silent(store: Store, browser: Chromium) -> None:
    browser.said.clear()
    browser.open(report(store))
    assert browser.js("document.querySelectorAll('[data-figures=scores] figure svg').length") == 4
    assert browser.js("document.querySelectorAll('[data-figures=effects] figure svg').length") == 4
    assert browser.js("document.querySelectorAll('[data-figures=loss] path.curve').length") > 10
    assert browser.js("document.querySelector('#scores .label') === null") is True
    text = browser.js("document.body.innerText")
    for said in ("dose1.0-s2", "loss nan at step 9", "not told from noise", "Behind each cell", "Transparency"):
        assert said in text, said
    browser.open(report(store), dark=True)
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 28)"
    assert browser.said == []


@in_browser
def test_a_click_on_a_head_sorts(store: Store, browser: Chromium) -> None:
    browser.open(report(store))
    column = "[...document.querySelectorAll('table.main tbody tr')].map(row => row.cells[4].dataset.v)"
    before = browser.js(column)
    head = "table.main thead th:nth-child(5) button"
    browser.click(head)
    down = [float(value) for value in browser.js(column) if value]
    assert (
        down == sorted(down, reverse=True)
        and browser.js("document.querySelector('[aria-sort]').ariaSort") == "descending"
    )
    # Sorted rows say whose they are, though they did not where they stood in their group.
    hidden = (
        "[...document.querySelectorAll('.main th.group > span')].some(e => getComputedStyle(e).visibility != 'visible')"
    )
    assert browser.js(hidden) is False
    browser.click(head)
    up = [float(value) for value in browser.js(column) if value]
    assert up == down[::-1]
    browser.click(head)
    assert browser.js(column) == before
    arms = "[...document.querySelectorAll('table.main tbody tr')].map(row => row.cells[0].textContent.trim())"
    browser.click("table.main thead th:first-child button")
    assert browser.js(arms) == sorted(browser.js(arms), key=str.lower)


@in_browser
def test_figures_answer(store: Store, browser: Chromium) -> None:
    browser.said.clear()
    browser.open(report(store))
    figure = "#scores figure:nth-child(3) svg"
    x, y = browser.place(figure, 0.97)
    browser.mouse("Moved", x, y)
    tip = browser.js("document.querySelector('.tip:not([hidden])').innerText")
    science = study(store, "qa_ratio").main.cells["QA-70%", 1_342_400, "Science"]
    assert "419B" in tip and "QA-70%" in tip and f"{100 * float(science.score.mean):.1f}"[:3] in tip
    curves = f"document.querySelectorAll('{figure} path.curve').length"
    assert browser.js(curves) == 4
    browser.click("#scores .key:nth-child(2)")
    assert (
        browser.js(curves) == 3
        and browser.js("document.querySelector('#loss .key:nth-child(2)').ariaPressed") == "false"
    )
    browser.click("#scores .seeds")
    assert browser.js(curves) == 0 and browser.js(f"document.querySelectorAll('{figure} path.seed').length") == 9
    browser.click("#scores .controls > .small")
    browser.click("#loss .seeds")
    ticks = f"[...document.querySelectorAll('{figure} text')].map(e => e.textContent).join()"
    before = browser.js(ticks)
    x, y = browser.place(figure, 0.4)
    browser.mouse("Pressed", x, y, 1)
    for step in range(1, 6):
        browser.mouse("Moved", x + 30 * step, y, 1)
    browser.mouse("Released", x + 150, y, 1)
    assert browser.js(ticks) != before
    browser.click("#scores figure:nth-child(3) .tools .small")
    assert browser.js(ticks) == before and browser.said == []


@in_browser
def test_a_legend_names_what_its_figures_draw(tmp_path: Path, browser: Chromium) -> None:
    made = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=8)
    with_routers(made, "QA-70%", 2)
    write_text(report(made), page(study(made, "qa_ratio")))
    browser.open(report(made))
    keys = "[...document.querySelectorAll('#{} .key')].map(e => e.textContent)"
    assert browser.js(keys.format("routing")) == ["QA-70%"]
    assert browser.js(keys.format("scores")) == ["QA-30%", "QA-70%", "shared by all arms"]
    browser.click("#routing .key")
    curves = "document.querySelectorAll('#{} path.curve').length"
    assert browser.js(curves.format("routing")) == 0 < browser.js(curves.format("scores"))
    browser.click("#routing .controls > .small")
    assert browser.js(curves.format("routing")) == 4


@in_browser
def test_a_cell_leads_to_its_runs(store: Store, browser: Chromium) -> None:
    browser.open(report(store))
    browser.click("table.main tbody tr:nth-child(4) td:nth-child(3) a")
    assert browser.js("document.getElementById('behind-3').open") is True
    assert "s2_2-v1-dose0.0-seed0" in browser.js("document.getElementById('behind-3').innerText")
    browser.js("document.querySelector('#arm-2').open = true")
    browser.click("#arm-2 [data-only]")
    assert browser.js("[...document.querySelectorAll('#scores .key')].map(e => e.ariaPressed)") == [
        "true",
        "false",
        "true",
        "true",
    ]


@in_browser
@pytest.mark.parametrize("name", ["qa_ratio", "planted"])
def test_a_phone_scrolls_one_way(store: Store, browser: Chromium, name: str) -> None:
    browser.said.clear()
    browser.open(report(store, name), width=390, height=844)
    browser.js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.js("document.documentElement.scrollWidth") == 390
    sizes = (
        "[...document.querySelectorAll('main p, td, th, li, dd')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(browser.js(sizes)) >= 12
    assert browser.js("getComputedStyle(document.querySelector('select.sorter')).display") == "block"
    browser.open(store.root / "sweeps" / "index.html", width=390, height=844)
    assert browser.js("document.documentElement.scrollWidth") == 390 and browser.said == []


@in_browser
def test_planted_names_are_text(store: Store, browser: Chromium) -> None:
    browser.said.clear()
    browser.open(report(store, "planted"))
    assert browser.js("document.querySelector('h1').textContent") == EVIL
    assert browser.js("document.querySelectorAll('img').length") == 0 and browser.js("document.scripts.length") == 2
    assert EVIL in browser.js("[...document.querySelectorAll('#scores .key')].map(e => e.textContent)")
    assert EVIL in browser.js("[...document.querySelectorAll('#data-cards td a')].map(e => e.textContent)")
    x, y = browser.place("#scores figure svg", 0.97)
    browser.mouse("Moved", x, y)
    assert EVIL in browser.js("document.querySelector('.tip').textContent") and browser.said == []
    # What a record could not bring in, a tampered page cannot run either.
    tampered = report(store, "planted").with_name("tampered.html")
    tampered.write_text(report(store, "planted").read_text().replace("<main>", "<main><script>window.bad = 1</script>"))
    browser.open(tampered)
    assert browser.js("window.bad") is None and "Content Security Policy" in str(browser.said)


@in_browser
def test_the_index_lists_every_sweep(store: Store, browser: Chromium) -> None:
    browser.said.clear()
    browser.open(store.root / "sweeps" / "index.html")
    rows = browser.js("[...document.querySelectorAll('table.index tbody tr')].map(row => row.innerText)")
    assert [row.split()[0] for row in rows] == ["planted", "qa_ratio", "unreported"]
    assert "no report yet: python -m analysis report unreported" in rows[2] and "8/9" in rows[1]
    assert "Supported: arithmetic_generative, QA-70%" in rows[1]
    browser.click("table.index thead th:nth-child(4) button")
    assert browser.js("document.querySelector('table.index tbody tr').innerText").startswith("qa_ratio")
    browser.js("document.querySelector('table.index tbody a').click()")
    while not browser.js("document.readyState === 'complete' && location.pathname.endsWith('report.html')"):
        pass
    assert browser.js("document.title").startswith("qa_ratio") and browser.said == []


def test_data_cannot_leave_its_element() -> None:
    text = str(embedded({"name": EVIL + "\u2028"}))
    assert not {"<", ">", "&", "\u2028"} & set(text) and json.loads(text) == {"name": EVIL + "\u2028"}


def test_curves_hold_what_the_records_say(store: Store) -> None:
    found = study(store, "qa_ratio")
    drawn = charts(found)
    science = next(chart for chart in drawn["scores"] if chart["title"] == "Science")
    line = next(line for line in science["lines"] if line["arm"] == 2)
    cell = found.main.cells["QA-70%", 1_342_400, "Science"]
    assert line["x"][-1] == 1_342_400 and line["mean"][-1] == pytest.approx(100 * float(cell.score.mean), rel=1e-4)
    assert {seed: values[-1] for seed, values in line["seeds"].items() if values[-1] is not None} == {
        str(seed): pytest.approx(100 * value, rel=1e-4) for seed, value in cell.by_seed.items()
    }
    training = drawn["loss"][0]["lines"]
    assert all(len(line["x"]) <= MOST and line["x"] == sorted(line["x"]) for line in training)
    shared = next(line for line in training if line["arm"] == -1)
    assert (
        sorted(shared["seeds"]) == ["0", "1", "2"]
        and shared["x"][-1] == found.sweep.plan.nodes["s2_1-v1-seed0"].begin + 237_568
    )


@pytest.mark.slow
def test_a_report_of_200_runs_is_small(tmp_path: Path) -> None:
    arms = {f"QA {place}": place / 66 for place in range(67)}
    store = fabricate(tmp_path, arms=arms, items=4, question=QUESTION | {"hypothesis": None, "paper": None})
    found = study(store, "qa_ratio")
    assert len(found.sweep.plan.runs) == 201
    assert len(page(found).encode()) < 5e6


def test_the_command_takes_several_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = fabricate(tmp_path, arms=TWO, seeds=(0, 1), items=8)
    write_text(small.sweep("broken") / "launched.json", "[]")
    root = str(tmp_path)
    assert main(["report", "--index", "--store", root]) == 0
    assert "(0 reported, 2 without a report)" in " ".join(capsys.readouterr().out.split())
    assert main(["report", "--store", root]) == 2  # one cannot be read, the other is reported
    captured = capsys.readouterr()
    assert captured.err.startswith("error: broken: ") and captured.err.count("\n") == 1
    assert "(1 reported, 1 without a report)" in " ".join(captured.out.split())
    assert Summary.model_validate_json((small.sweep("qa_ratio") / "report" / "summary.json").read_bytes()).runs == 4
    assert main(["report", "qa_ratio", "--index", "--store", root]) == 2
    assert "--index takes no sweeps" in capsys.readouterr().err
    assert main(["report", "--store", str(tmp_path / "none")]) == 2
    assert "has no sweep" in capsys.readouterr().err


@in_browser
def test_long_labels_that_begin_alike_are_told_apart_and_nothing_is_cut(tmp_path: Path, browser: Chromium) -> None:
    labels = [f"curriculum.stages.s2_2.mixture=qa{10 * index} optimizer.beta2=0.9{index}" for index in range(4)]
    arms = {label: index / 3 for index, label in enumerate(labels)}
    sweep = "a_sweep_whose_name_is_as_long_as_a_file_name_may_well_be"
    made = fabricate(tmp_path, sweep=sweep, arms=arms, seeds=(0, 1), items=8, question={"text": "Which?"})
    assert main(["report", sweep, "--store", str(tmp_path)]) == 0
    for width in (390, 1280):
        browser.said.clear()
        browser.open(report(made, sweep), width=width)
        found = browser.js(
            "JSON.stringify([...document.querySelectorAll('[data-figures=effects] figure')].map(figure => "
            "[...figure.querySelectorAll('text.label')].map(text => "
            "[text.textContent, text.getBoundingClientRect().right <= figure.getBoundingClientRect().right])))"
        )
        for figure in json.loads(found):
            texts = [text for text, _ in figure]
            assert len(texts) == len(set(texts)) == 3 and all(fits for _, fits in figure)
            assert all(text.endswith(label[-9:]) for text, label in zip(texts, labels[1:], strict=True))
        browser.open(made.root / "sweeps" / "index.html", width=width)
        assert browser.js(
            "document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth"
        )
        assert browser.said == []
