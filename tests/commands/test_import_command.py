"""``import DIR`` and ``export imported:NAME``: what goes in comes out as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from davinci.__main__ import main
from davinci.config import Model, parse
from davinci.imported import read, weights_of
from davinci.store import Store

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def saved(folder: Path, seed: int = 1) -> Path:
    """A small random model of transformers with a tokenizer and a licence, in bfloat16."""
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=64, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=32,
    )  # fmt: skip
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="a")).save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(store: Store, *words: object) -> int:
    return main([*map(str, words), "--store", str(store.root)])


def take(store: Store, folder: Path, name: str = "small") -> int:
    return run(store, "import", folder, "--as", name, "--config-dir", store.root.parent / "conf")


def test_in_and_out_again_unchanged(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "theirs")
    assert take(store, folder) == 0
    assert "Qwen3ForCausalLM, licence apache-2.0" in capsys.readouterr().out
    shape = yaml.safe_load((tmp_path / "conf" / "model" / "small.yaml").read_text())
    model = parse(Model, shape)
    record = read(store, "small")
    assert model.qk_norm.kind == "rms" and model.pretrained is not None and model.pretrained.digest == record.digest
    assert weights_of(model, store) == store.imported("small")
    assert run(store, "export", "imported:small", tmp_path / "out") == 0
    before, after = (load_file(one / "model.safetensors") for one in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(one.dtype == after[key].dtype and torch.equal(one, after[key]) for key, one in before.items())
    for file in ("config.json", "tokenizer.json", "README.md"):
        assert (folder / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    assert take(store, folder) == 0  # once more: the same


def test_what_an_earlier_version_took_in_otherwise_is_not_given_out(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(store, saved(tmp_path / "theirs")) == 0
    (kept,) = store.imported("small").rglob("config.json")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"attention_bias": True}))
    capsys.readouterr()
    assert run(store, "export", "imported:small", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert (
        "imported:small: taken in by a version that laid it out otherwise; import it again (its folder: tensor" in error
    )
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_name_stands_for_one_model(tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert take(store, saved(tmp_path / "one")) == 0
    assert take(store, saved(tmp_path / "other", seed=2)) == 2
    assert "has other weights; give another name" in capsys.readouterr().err
    conf = tmp_path / "conf" / "model" / "mine.yaml"
    conf.write_text("name: mine\n")
    assert take(store, tmp_path / "one", "mine") == 2
    assert "is a model already" in capsys.readouterr().err and conf.read_text() == "name: mine\n"
    assert sorted(one.name for one in (store.root / "imported").iterdir()) == ["small"]


def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "theirs")
    capsys.readouterr()  # transformers' progress
    for spoil, message in (
        (lambda: (folder / "model.safetensors").write_bytes(b"x" * 40), "missing or damaged"),
        (lambda: (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalML"]})), "nearest"),
        (lambda: (folder / "config.json").unlink(), "it has no config.json"),
    ):
        spoil()
        assert take(store, folder) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert run(store, "export", "imported:smal", tmp_path / "out") == 2
    assert not list(store.root.glob("imported/*")) and not (tmp_path / "conf").exists()


@pytest.mark.parametrize("spoilt", ["{}", "[]", '{"version": "1.0", "mod'])
def test_a_tokenizer_that_is_none_is_refused(
    spoilt: str, tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "theirs")
    (folder / "tokenizer.json").write_text(spoilt)
    capsys.readouterr()
    assert take(store, folder) == 2
    error = capsys.readouterr().err
    assert "tokenizer.json: no tokenizer of the tokenizers library (" in error and error.count("\n") == 1
    assert not list(store.root.glob("imported/*")) and not (tmp_path / "conf").exists()


def test_without_a_tokenizer_it_says_what_to_give(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    assert take(store, folder) == 0
    said = capsys.readouterr().out
    assert "has no tokenizer.json: PATH is the model's from elsewhere" in said
    assert f"data tokenize FILES --pool mine --config-dir {tmp_path / 'conf'} --tokenizer PATH\n" in said


def test_a_shape_that_cannot_be_written_leaves_no_weights(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "theirs")
    capsys.readouterr()
    assert run(store, "import", folder, "--as", "small", "--config-dir", folder / "config.json") == 2
    error = capsys.readouterr().err
    assert f"small.yaml: cannot be read or written ({folder / 'config.json'} is no folder)" in error
    assert error.count("\n") == 1 and not store.root.exists()


def test_an_embedding_said_to_be_tied_has_to_be(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert take(store, folder) == 2  # lm_head.weight is another matrix
    assert "lm_head.weight is not model.embed_tokens.weight" in capsys.readouterr().err
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert take(store, folder) == 0
