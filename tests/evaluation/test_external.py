"""Another's model through the suite: by lm-eval's own HFLM, cached by the same rules, mistakes on one line."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from davinci.__main__ import main
from davinci.config import Evaluation, parse
from davinci.errors import UserError
from davinci.evaluation import embedded, external
from davinci.store import Store, read_json

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed: pip install 'davinci[hf]'"
)
CONF = Path(__file__).parents[2] / "conf" / "evaluation" / "embedded.yaml"


@pytest.fixture
def store(built_pool: Store, tmp_path: Path) -> Store:
    copy = Store(tmp_path / "store")
    embedded.make_tasks(built_pool, "embedded")
    shutil.copytree(built_pool.pool("embedded"), copy.pool("embedded"))
    return copy


def save(folder: Path, tokenizer: Path, kind: str, seed: int = 0) -> Path:
    """A tiny random model and its tokenizer, as transformers saves them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 0,
        "eos_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**shape)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**shape))
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Path:
    return save(tmp_path / "tiny", store.pool("embedded") / "tokenizer.json", "qwen2")


def small(*names: str, limit: int | None = 4, **changes: Any) -> Evaluation:
    data = yaml.safe_load(CONF.read_text(encoding="utf-8"))
    chosen = {name: {**data["benchmarks"][name], **changes} for name in names}
    return parse(Evaluation, {**data, "benchmarks": chosen, "limit": limit, "probes": None})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@needs_transformers
@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_scores_and_records_are_those_of_a_checkpoint(kind: str, store: Store, tmp_path: Path) -> None:
    path = save(tmp_path / f"a {kind}", store.pool("embedded") / "tokenizer.json", kind)
    model, asked = external.identify(path, store), small("code_indentation", "arithmetic_generative")
    served, results = external.evaluate(model, asked, store, pool="embedded")
    assert not served and [one.items for one in results] == [4, 4]
    assert model.name == f"a-{kind}-{model.weights[:8]}"
    frame = pd.read_parquet(model.folder / "evaluations" / f"{results[0].key}.parquet")
    assert list(frame.groupby("benchmark", sort=False)["score"].mean()) == [one.score for one in results]
    assert all(len(row) == 4 for row in frame["likelihoods"].dropna())
    kept = read_json(model.folder / "scores.json")[asked.key]
    assert {name: one["score"] for name, one in kept["benchmarks"].items()} == {
        one.benchmark: one.score for one in results
    }


@needs_transformers
def test_what_may_be_written_is_longer_than_the_context(store: Store, folder: Path) -> None:
    asked = small("code_indentation", limit=2, protocol="generative", prompt="cot")
    model = external.identify(folder, store)
    (result,) = external.evaluate(model, asked, store, pool="embedded")[1]
    assert (result.items, result.truncated) == (2, 2), "512 tokens may be written, and 256 is all it can read"


@needs_transformers
def test_a_change_is_evaluated_and_nothing_else_is(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = small("code_indentation")

    def is_served(evaluation: Evaluation = asked, dtype: external.Dtype = "float32") -> bool:
        model = external.identify(folder, store)
        return external.evaluate(model, evaluation, store, pool="embedded", dtype=dtype)[0]

    assert [is_served(), is_served()] == [False, True]
    assert not is_served(dtype="bfloat16")
    assert not is_served(small("code_indentation", num_fewshot=1))
    assert not is_served(small("code_indentation", limit=5))
    assert is_served()
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")
    assert not is_served()
    save(folder, store.pool("embedded") / "tokenizer.json", "qwen2", seed=1)
    assert not is_served()
    assert len(list((store.root / "external").iterdir())) == 2, "a folder a weights digest"


@needs_transformers
def test_the_command(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", f"hf:{folder}", "--limit", "2", "--json", "--store", str(store.root)]
    for served in (False, True):
        assert main(words) == 0
        (found,) = json.loads(capsys.readouterr().out)["evaluations"]
        assert found["served"] is served and len(found["scores"]) >= 7


def _without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                path.unlink()

    return remove


def fake(folder: Path) -> Path:
    """Files by the names that matter."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (_without("config.json"), "it has no config.json"),
        (_without("*.safetensors"), "no weights in *.safetensors; pickled ones"),
        (_without("tokenizer*"), "it has no tokenizer"),
    ],
)
def test_folders_that_cannot_be_used(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    folder = fake(tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError) as caught:
        external.identify(folder, Store(tmp_path / "store"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_without_transformers_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"transformers is not installed; pip install 'davinci\[hf\]'"):
        external.identify(fake(tmp_path / "model"), Store(tmp_path / "store"))


@needs_transformers
def test_a_folder_that_transformers_refuses(store: Store, tmp_path: Path) -> None:
    model = external.identify(fake(tmp_path / "model"), store)
    with pytest.raises(UserError, match="transformers cannot load it: "):
        external.evaluate(model, small("code_indentation"), store, pool="embedded")
