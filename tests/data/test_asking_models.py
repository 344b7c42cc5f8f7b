"""Operations that ask a model: order, cache, failures, cost; servers that are dead, busy, slow or wrong."""

import json
import threading
from pathlib import Path

import pytest
from stub_model import StubModel, completion, says

from davinci.__main__ import main
from davinci.data.cards import read_card
from davinci.data.documents import Document
from davinci.data.llm.cache import AnswerCache, key_of
from davinci.data.llm.prompts import read_prompt
from davinci.data.operations import Places, _read_step
from davinci.data.tally import Tally
from davinci.errors import UserError
from davinci.store import Store

DOCUMENTS = [
    Document(f"d{one}", "k", f"The graph of case {one} has {one + 20} nodes and is drawn.\n") for one in range(12)
]


def places(folder):
    return Places(folder / "step", folder / "cache", folder / "archives", folder)


def step(endpoint, name="refined_by_llm", **parameters):
    quick = {"first_wait_s": 0.01, "attempts": 3, "model": "stub", "prompt": "refine_plain"}
    return _read_step({name: {"endpoint": endpoint} | quick | parameters}, "pool.yaml:chain").located(
        places(Path("conf/pool"))
    )


def asked_about(body):
    return body["messages"][-1]["content"].split("\n\n", 1)[1]


def refined(body):
    return asked_about(body).replace("has", "contains").replace("and is drawn", "and can be drawn")


def run(one, documents, folder):
    tally = Tally()
    return list(one.run(iter(documents), tally, places(folder))), tally.counted, tally


def test_answers_come_in_order_however_they_arrive(tmp_path):
    gate = threading.Event()

    def answer(body, index):
        if "case 0 " in asked_about(body):
            assert gate.wait(20)  # the first document's answer comes after others'
        elif "case 3 " in asked_about(body):
            gate.set()
        return 200, {}, completion(refined(body))

    with StubModel(answer) as server:
        out, counted, _ = run(
            step(server.endpoint, concurrency=4, price={"prompt": 2, "completion": 10}), DOCUMENTS, tmp_path
        )
    assert [one.id for one in out] == [one.id for one in DOCUMENTS]
    assert out[5].text == "The graph of case 5 contains 25 nodes and can be drawn.\n"
    assert counted["documents accepted"] == 12 == counted["answers"]
    assert counted["prompt tokens"] == 84 and counted["completion tokens"] == 36
    assert counted["cost in millionths"] == 12 * (7 * 2 + 3 * 10)


def test_what_was_asked_once_costs_nothing_again(tmp_path):
    with says(refined) as server:
        first, _, _ = run(step(server.endpoint), DOCUMENTS, tmp_path)
        again, counted, _ = run(step(server.endpoint, concurrency=2, timeout_s=9), DOCUMENTS, tmp_path)
        assert len(server.requests) == 12 and again == first and counted["answers from the cache"] == 12
        run(step(server.endpoint, max_tokens=9), DOCUMENTS, tmp_path)
        assert len(server.requests) == 24  # other parameters, other answers


def test_a_dead_server_stops_in_one_line_and_the_next_build_goes_on(tmp_path):
    def dies(body, index):
        return (200, {}, completion(refined(body))) if index < 5 else (503, {}, {"error": "down"})

    with StubModel(dies) as server, pytest.raises(UserError) as stopped:
        run(step(server.endpoint, concurrency=1), DOCUMENTS, tmp_path)
    said = str(stopped.value)
    assert "gives no answers (status 503, 3 attempts)" in said and "goes on from there" in said and "\n" not in said
    assert "5 documents of this part are done" in said
    with pytest.raises(UserError, match="gives no answers .*refused.*0 documents|gives no answers"):
        run(step(server.endpoint, concurrency=1, attempts=2), DOCUMENTS[5:], tmp_path)  # nobody listens any more
    with says(refined) as server:
        out, counted, _ = run(step(server.endpoint), DOCUMENTS, tmp_path)
    assert len(out) == 12 and counted["answers from the cache"] == 5 and len(server.requests) == 7


def test_a_build_stops_with_its_server_and_the_next_goes_on(tmp_path, capsys):
    """By the command, from a pool's file to its card."""
    lines = [json.dumps({"id": one.id, "text": one.text}) for one in DOCUMENTS]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines))

    def build(endpoint):
        asks = {"endpoint": endpoint, "model": "stub", "prompt": "refine_plain", "attempts": 2, "first_wait_s": 0.01}
        chain = [{"jsonl": {"paths": ["notes.jsonl"]}}, {"refined_by_llm": asks | {"concurrency": 1}}]
        source = {"domain": "science", "depths": ["L0", "L4"], "chain": chain, "heldout_fraction": 0.2}
        pool = {"name": "notes", "tokenizer": "notes", "vocab_size": 258, "sources": {"notes": source}}
        (tmp_path / "notes.yaml").write_text(json.dumps(pool))
        store = str(tmp_path / "store")
        return main(["data", "build", str(tmp_path / "notes.yaml"), "--store", store, "--workers", "1"])

    def dies(body, index):
        return (200, {}, completion(refined(body))) if index < 5 else (500, {}, {})

    with StubModel(dies) as server:
        assert build(server.endpoint) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: source notes: refined_by_llm: http://127.0.0.1:")
    assert "the same command goes on from there" in said
    with says(refined) as server:
        assert build(server.endpoint) == 0 and len(server.requests) == 7
    card = read_card(Store(tmp_path / "store"), "notes").sources["notes"].variants
    step = card["L4"].chain[-1]
    assert step["counted"]["answers from the cache"] == 5 and step["counted"]["documents accepted"] == 12
    assert step["prompt"]["name"] == "refine_plain" and "endpoint" not in step["parameters"]
    assert card["L0"].documents == card["L4"].documents and card["L0"].digest != card["L4"].digest
    assert card["L0"].documents_digest == card["L4"].documents_digest  # the same documents, deeper


def test_a_busy_server_is_asked_again_when_it_says(tmp_path):
    def busy(body, index):
        return (429, {"Retry-After": "0"}, {}) if index % 2 == 0 else (200, {}, completion(refined(body)))

    with StubModel(busy) as server:
        out, counted, _ = run(step(server.endpoint, concurrency=1), DOCUMENTS[:3], tmp_path)
    assert len(out) == 3 and counted["requests repeated"] == 3


def test_retry_after_may_be_a_date_and_is_bounded():
    from davinci.data.llm.client import _asked_wait

    assert _asked_wait("7") == 7 and _asked_wait("1e9") == 600 and _asked_wait("soon") == 0
    assert _asked_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_slow_answers_of_one_document_do_not_stop_the_others(tmp_path):
    never = threading.Event()

    def slow(body, index):
        if "case 1 " in asked_about(body):
            never.wait(20)
        return 200, {}, completion(refined(body))

    with StubModel(slow) as server:
        out, counted, _ = run(
            step(server.endpoint, concurrency=2, timeout_s=0.3, attempts=2, samples=1), DOCUMENTS, tmp_path
        )
        never.set()
    assert out[1] == DOCUMENTS[1] and counted["rejected: no answer in time"] == 1
    assert counted["documents accepted"] == 11


def test_a_server_that_never_answers_in_time_is_dead(tmp_path):
    never = threading.Event()
    with StubModel(lambda body, index: (never.wait(20), {}, {})) as server:
        with pytest.raises(UserError, match="no answer in time, 2 attempts"):
            run(step(server.endpoint, timeout_s=0.1, attempts=2), DOCUMENTS[:1], tmp_path)
        never.set()


@pytest.mark.parametrize(
    "broken", [b"<html>gateway</html>", {"choices": []}, {"choices": [{"message": {"content": 3}}]}]
)
def test_a_body_that_is_no_completion_is_asked_for_again(tmp_path, broken):
    with StubModel(lambda body, index: (200, {}, broken if index == 0 else completion(refined(body)))) as server:
        out, counted, _ = run(step(server.endpoint), DOCUMENTS[:1], tmp_path)
        assert out[0].text != DOCUMENTS[0].text and counted["requests repeated"] == 1
    with (
        StubModel(lambda body, index: (200, {}, broken)) as server,
        pytest.raises(UserError, match="no chat completion"),
    ):
        run(step(server.endpoint), DOCUMENTS[1:2], tmp_path)


def test_an_answer_that_breaks_the_format_is_counted_retried_then_as_told(tmp_path):
    def half(body, index):
        good = "case 0 " in body["messages"][-1]["content"] and body["seed"] == 1
        text = body["messages"][-1]["content"].split("<document>\n")[1].split("\n</document>")[0]
        return 200, {}, completion(f"<text>\n{text}\n</text>" if good else "Certainly! Here it is.")

    with StubModel(half) as server:
        one = step(server.endpoint, prompt="refine_science")
        out, counted, _ = run(one, DOCUMENTS[:2], tmp_path)
        assert out == DOCUMENTS[:2] and counted["documents unchanged"] == 1
        assert counted["rejected: broken format"] == 3 and counted["documents kept as they were"] == 1
        out, _, tally = run(one.model_copy(update={"on_failure": "drop"}), DOCUMENTS[:2], tmp_path)
        assert [one.id for one in out] == ["d0"] and tally.dropped == {"broken format": 1}
        assert len(server.requests) == 4  # broken answers are in the cache too


def test_a_mistake_of_the_request_is_said_at_once(tmp_path):
    with StubModel(lambda body, index: (404, {}, {"error": {"message": "no model 'stub' here"}})) as server:
        with pytest.raises(UserError, match="refused with status 404: .*no model 'stub' here"):
            run(step(server.endpoint, concurrency=1), DOCUMENTS, tmp_path)
        assert len(server.requests) < len(DOCUMENTS)
    with (
        StubModel(lambda body, index: (400, {}, {"error": "unknown field"})) as server,
        pytest.raises(UserError, match="status 400"),
    ):
        run(step(server.endpoint, concurrency=1, samples=1), DOCUMENTS, tmp_path)


def test_a_document_that_the_server_refuses_fails_alone(tmp_path):
    def refuses(body, index):
        long = "case 4 " in asked_about(body)
        return (400, {}, {"error": "context too long"}) if long else (200, {}, completion(refined(body)))

    with StubModel(refuses) as server:
        out, counted, _ = run(step(server.endpoint, concurrency=1, samples=1), DOCUMENTS, tmp_path)
    assert (
        out[4] == DOCUMENTS[4]
        and counted["rejected: refused by the server"] == 1 == counted["documents kept as they were"]
    )


def test_cut_off_and_overlong(tmp_path):
    with StubModel(lambda body, index: (200, {}, completion("The", finish_reason="length"))) as server:
        _, counted, _ = run(step(server.endpoint, samples=1), DOCUMENTS[:1], tmp_path)
        assert counted["rejected: cut off at max_tokens"] == 1
        _, counted, _ = run(step(server.endpoint, longest=10), DOCUMENTS[:1], tmp_path)
        assert counted["rejected: longer than is asked about"] == 1 and len(server.requests) == 1


def test_the_key_is_read_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SERVER", "word")
    with says(refined) as server:
        run(step(server.endpoint, key_variable="MY_SERVER"), DOCUMENTS[:1], tmp_path)
        assert server.headers[0]["Authorization"] == "Bearer word"


def test_what_decides_the_output_is_described_and_nothing_else():
    one, other = (
        step("http://a/v1", concurrency=3, timeout_s=5, price={"prompt": 1, "completion": 1}),
        step("http://b/v1"),
    )
    assert one.described() == other.described()
    assert one.described()["prompt"] == {
        "name": "refine_plain",
        "version": 1,
        "digest": read_prompt("refine_plain").digest,
    }
    assert step("http://a/v1", temperature=0.5).described() != one.described()


def test_prompts_are_checked_when_a_chain_is_read(tmp_path):
    with pytest.raises(UserError, match="no prompt 'refine_plian'.*nearest: refine_plain"):
        step("http://a/v1", prompt="refine_plian")
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nversion: 1\nuser: Rewrite.\nanswer: (.*)\n")
    with pytest.raises(UserError, match="{text} is missing"):
        step("http://a/v1", prompt=str(mine))
    mine.with_name("other.yaml").write_text("name: mine\nversion: 1\nuser: 'Rewrite {text}'\nanswer: .*\n")
    with pytest.raises(UserError, match="has no group"):
        step("http://a/v1", prompt=str(mine.with_name("other.yaml")))


@pytest.mark.parametrize(
    "name", ["refine_science", "refine_plain", "complete_reasoning", "synthesise_qa", "educational_value"]
)
def test_every_prompt_of_the_repository_reads(name):
    prompt = read_prompt(name)
    assert prompt.name == name and "{text}" not in prompt.messages("body")[-1]["content"]


def test_workers_share_the_cache_and_a_torn_line_is_no_answer(tmp_path):
    one, other = AnswerCache(tmp_path / "s"), AnswerCache(tmp_path / "s")
    one.put(key_of("a"), {"text": "of a"})
    other.put(key_of("b"), {"text": "of b\nand more ü"})
    assert len(list((tmp_path / "s").iterdir())) == 2
    torn = tmp_path / "s" / "torn.jsonl"
    torn.write_bytes(json.dumps({"key": key_of("c"), "answer": {"text": "x"}}).encode()[:-3])
    third = AnswerCache(tmp_path / "s")
    assert third.get(key_of("a")) == {"text": "of a"} and third.get(key_of("b")) == {"text": "of b\nand more ü"}
    assert third.get(key_of("c")) is None
