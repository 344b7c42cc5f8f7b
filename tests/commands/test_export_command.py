"""``export RUN --to hf DIR``: the run's network in a folder that transformers loads."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from davinci.__main__ import main
from davinci.model.decoder import Decoder
from davinci.planning.plan import load_plan
from davinci.store import Store


@pytest.fixture
def trained(store: Store, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """Real weights in the place of the stand-in's, at the end of arm0, and a tokenizer in its pool."""
    monkeypatch.delitem(sys.modules, "davinci.model.weights")  # the stand-in
    plan = load_plan(store, next((store.root / "sweeps").iterdir()).name)
    node = plan.nodes["c0-s0"]
    decoder = Decoder(node.model, node.vocab_size)
    decoder.initialise(1)
    save_file(dict(decoder.named_parameters()), store.checkpoint("c0-s0", 240) / "model.safetensors")
    words = {"<|endoftext|>": 0} | {f"w{one}": one for one in range(1, node.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = store.pool(node.pool)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return decoder


def test_transformers_computes_what_the_run_computes(
    trained: Decoder, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    words = ["export", "arm0-s0", "--to", "hf", str(tmp_path / "out"), "--json", "--store", str(store.root)]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tokens"] == 240 and said["not_in_vllm"] == []
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokens = torch.arange(1, 5)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, trained(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("arm0-s0", "there"), "is there already; name a folder that is new or empty"),
        (("arm0-s0", "there/file/sub"), "there/file/sub: cannot be read or written ("),
        (("arm0-s0", "/proc/new"), "/proc/new: cannot be read or written (No such file or directory)"),
        (("arm0-s0", "new", "--checkpoint", "all"), "one is exported at a time; there are"),
        (("arm9-s0", "new"), "has no run 'arm9-s0'; nearest: arm"),
        (("arm0-s0", "new", "--weights", "average"), "no checkpoint of run arm0-s0 has averaged weights"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: tuple[str, ...],
    message: str,
    trained: Decoder,
    store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    run, folder, *rest = words
    assert main(["export", run, str(tmp_path / folder), *rest, "--store", str(store.root)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "new").exists()
