"""Shards and batches: pure functions of seed, source and position; common random numbers; honest errors."""

import shutil

import numpy as np
import pytest

from davinci.config import BatchStep, LearningRate, Mixture, Model, Node, Optimizer, SourceUse, Stage
from davinci.data import batches
from davinci.data.batches import Batches
from davinci.data.cards import read_card
from davinci.data.heldout import heldout
from davinci.data.permutation import permute
from davinci.data.shards import Shard
from davinci.errors import UserError
from davinci.store import Store

T = 16


def node(store, weights, *, mask=False, position=0, seed=3, begin=0, digest=None, tokenizer=None, depth="L1"):
    card = read_card(store, "small")
    depths = {"speeches": depth, "programs": depth, "sums": "L5", "asked": "L5"}
    sources = {
        name: SourceUse(
            domain=card.sources[name].domain,
            depth=depths[name],
            digest=digest or card.sources[name].variants[depths[name]].digest,
            weight=weight,
        )
        for name, weight in weights.items()
    }
    stage = Stage(
        tokens=T * 600,
        sequence_length=T,
        batch_size=(BatchStep(from_tokens=0, sequences=4), BatchStep(from_tokens=T * 40, sequences=8)),
        lr=LearningRate(shape="constant", start=1e-3),
        mixture=Mixture(domains={"qa": 1.0}),
        mask_questions=mask,
        optimizer_state="carry",
    )
    model = Model(
        name="m",
        layers=1,
        hidden_size=8,
        attention_heads=1,
        kv_heads=1,
        head_dim=8,
        mlp_intermediate_size=8,
        vocab_size=320,
        max_position_embeddings=T,
        rope_theta=1e4,
        norm_eps=1e-6,
        qkv_bias=False,
        tie_embeddings=True,
        initializer_range=0.02,
        precision="float32",
    )
    optimizer = Optimizer(name="adamw", beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, gradient_clip=1.0)
    return Node(
        id="n",
        parent=None,
        stage_name="s",
        stage_begin=0,
        begin=begin,
        end=stage.grid.tokens_used,
        stage=stage,
        sources=sources,
        mixture_position=position,
        initialisation_seed=0,
        data_seed=seed,
        model=model,
        optimizer=optimizer,
        pool="small",
        tokenizer_digest=tokenizer,
        vocab_size=320,
        checkpoint_every_tokens=1000,
    )


def shard(store, name="speeches@L1", split="train"):
    source, depth = name.split("@")
    return Shard(store.pool("small") / name, split, read_card(store, "small").sources[source].variants[depth])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 64, 65, 1000, 4097])
def test_permutation_is_a_bijection_that_its_key_chooses(size):
    index = np.arange(size)
    one, other = permute(index, size, "a"), permute(index, size, "b")
    assert sorted(one.tolist()) == index.tolist() == sorted(other.tolist())
    if size >= 17:
        assert one.tolist() != other.tolist() and one.tolist() != index.tolist()
    assert permute(index[size // 2 :], size, "a").tolist() == one[size // 2 :].tolist()


def test_permutation_spreads():
    """Neighbours land anywhere, and every place is as likely: mean distance a third, a flat histogram."""
    size = 10_000
    places = permute(np.arange(size), size, "key")
    assert abs(np.abs(np.diff(places)).mean() / size - 1 / 3) < 0.02
    first = np.array([permute(np.array([0]), size, f"key {one}")[0] for one in range(400)])
    counts = np.histogram(first, bins=8, range=(0, size))[0]
    assert ((counts - 50) ** 2 / 50).sum() < 24.3  # chi-squared, 7 degrees of freedom, 0.1%


def test_permutation_is_frozen():
    """Golden: a change here changes every run's data. It must come with a new numerics version."""
    assert permute(np.arange(10), 10, "golden").tolist() == [5, 0, 9, 1, 8, 4, 3, 6, 7, 2]


def test_every_epoch_reads_every_sequence_once(built):
    one = shard(built[0])
    size = one.sequences(T)
    epochs = one.chunks(np.arange(2 * size), seed=1, length=T)
    assert sorted(epochs[:size].tolist()) == sorted(epochs[size:].tolist()) == list(range(size))
    assert epochs[:size].tolist() != epochs[size:].tolist()
    assert one.chunks(np.arange(size), seed=2, length=T).tolist() != epochs[:size].tolist()


def test_a_draw_is_its_chunk_of_the_file(built):
    store, _ = built
    one = shard(store, "sums@L5")
    tokens, question = one.draw(seed=5, k=7, length=T)
    chunk = int(one.chunks(np.array([7]), 5, T)[0])
    whole = np.fromfile(store.pool("small") / "sums@L5" / "train.bin", dtype=np.uint16)
    asks = np.fromfile(store.pool("small") / "sums@L5" / "train.question.bin", dtype=np.uint8)
    assert tokens.tolist() == whole[chunk * T : chunk * T + T + 1].tolist() and tokens.dtype == np.int64
    assert question.tolist() == asks[chunk * T + 1 : chunk * T + T + 1].astype(bool).tolist()


def test_batches_have_the_declared_shapes(built):
    reader = Batches(node(built[0], {"speeches": 3, "programs": 2, "sums": 5}), built[0], {})
    assert reader.domains == ["code", "general", "qa"]
    first, late = reader.batch(0), reader.batch(12)
    assert first.tokens.shape == (4, T + 1) and late.tokens.shape == (8, T + 1)
    assert first.tokens.dtype == np.int64 and first.loss_mask.dtype == bool and first.loss_mask.shape == (4, T)
    assert first.domain.dtype == np.int64 and first.loss_mask.all()


def test_a_batch_depends_on_its_step_alone(built):
    store, _ = built
    spec = node(store, {"speeches": 3, "programs": 2, "sums": 5})
    forward, backward = Batches(spec, store, {}), Batches(spec, store, {})
    ahead = [forward.batch(step).tokens for step in range(30)]
    back = [backward.batch(step).tokens for step in reversed(range(30))][::-1]
    assert all((one == other).all() for one, other in zip(ahead, back, strict=True))


def test_common_random_numbers(built):
    """Two mixtures read a source's sequences in the same order, however often each takes it."""
    store, _ = built

    def read(weights):
        reader = Batches(node(store, weights), store, {})
        general = reader.domains.index("general")
        batches = [reader.batch(step) for step in range(70)]
        return [row for one in batches for row in one.tokens[one.domain == general].tolist()]

    rare, often = read({"speeches": 1, "sums": 4}), read({"speeches": 2, "programs": 1, "asked": 1})
    assert len(rare) < len(often) and often[: len(rare)] == rare


def test_cursors_continue_across_stages(built):
    store, _ = built
    spec = node(store, {"speeches": 1, "sums": 1})
    first = Batches(spec, store, {"asked": 9})
    cursors = first.cursors_at(20)
    assert cursors["asked"] == 9 and cursors["speeches"] + cursors["sums"] == 10 * 4 + 10 * 8
    assert first.cursors_at(0) == {"asked": 9, "speeches": 0, "sums": 0}
    later = Batches(node(store, {"speeches": 1}), store, cursors)
    expected = shard(store).chunks(np.arange(cursors["speeches"], cursors["speeches"] + 4), 3, T)
    assert (later.batch(0).tokens == shard(store).read(expected, T)[0]).all()


def test_cutting_a_stage_in_two_changes_nothing(built):
    store, _ = built
    whole = Batches(node(store, {"speeches": 2, "programs": 1, "sums": 4}), store, {})
    cut = 10  # after ten steps of four the second part would begin, with steps of four again
    rest = Batches(
        node(store, {"speeches": 2, "programs": 1, "sums": 4}, position=4 * cut), store, whole.cursors_at(cut)
    )
    wide = np.concatenate([whole.batch(cut + step).tokens for step in range(4)])
    narrow = np.concatenate([rest.batch(step).tokens for step in range(8)])
    assert (wide == narrow).all()
    assert rest.cursors_at(8) == whole.cursors_at(cut + 4)


def test_windows_join(built):
    """Past the first window of the order the reader goes on as if there were none."""
    store, _ = built
    reader = Batches(node(store, {"speeches": 2, "sums": 3}), store, {})
    sources, chunks = reader._sequences(4090, 20)
    alone = [reader._sequences(4090 + one, 1) for one in range(20)]
    assert sources.tolist() == [int(one[0][0]) for one in alone]
    assert chunks.tolist() == [int(one[1][0]) for one in alone]


def test_ranks_share_a_batch(built):
    store, _ = built
    spec = node(store, {"speeches": 2, "sums": 3})
    whole = Batches(spec, store, {}).batch(3)
    parts = [Batches(spec, store, {}, rank=rank, world=2).batch(3) for rank in range(2)]
    assert (whole.tokens[0::2] == parts[0].tokens).all() and (whole.tokens[1::2] == parts[1].tokens).all()


def test_mask_hides_questions_only_if_asked(built):
    store, _ = built
    masked = Batches(node(store, {"sums": 1}, mask=True), store, {}).batch(0)
    plain = Batches(node(store, {"sums": 1}), store, {}).batch(0)
    assert (masked.tokens == plain.tokens).all()
    assert plain.loss_mask.all() and 0 < masked.loss_mask.mean() < 1


def test_other_content_is_refused(built):
    store, _ = built
    with pytest.raises(UserError, match="speeches@L1: not the content"):
        Batches(node(store, {"speeches": 1}, digest="0" * 64), store, {})
    with pytest.raises(UserError, match=r"tokenizer\.json: not the tokenizer"):
        Batches(node(store, {"speeches": 1}, tokenizer="0" * 64), store, {})
    deeper = {"speeches": SourceUse(domain="general", depth="L4", digest=None, weight=1)}
    with pytest.raises(UserError, match="speeches has no depth L4"):
        Batches(node(store, {"speeches": 1}).model_copy(update={"sources": deeper}), store, {})


def test_shards_of_another_tokenizer_are_refused(built, monkeypatch):
    store, _ = built
    card = read_card(store, "small")
    source = card.sources["speeches"]
    other = {level: one.model_copy(update={"tokenizer": "0" * 64}) for level, one in source.variants.items()}
    sources = {**card.sources, "speeches": source.model_copy(update={"variants": other})}
    monkeypatch.setattr(batches, "built_card", lambda *_: card.model_copy(update={"sources": sources}))
    with pytest.raises(UserError, match=r"speeches@L\d: tokens of tokenizer 000000000000, but the pool's is"):
        Batches(node(store, {"speeches": 1}), store, {})


def test_unbuilt_pool_names_the_command(built, tmp_path):
    spec = node(built[0], {"speeches": 1})
    with pytest.raises(UserError, match="pool small is not built in .*python -m davinci data build"):
        Batches(spec, Store(tmp_path), {})
    with pytest.raises(UserError, match="python -m davinci data build small"):
        heldout(tmp_path / "pools" / "small", "qa", 4, T)


def test_truncated_shard_names_the_file(built, tmp_path):
    store, _ = built
    shutil.copytree(store.pool("small"), Store(tmp_path).pool("small"))
    path = Store(tmp_path).pool("small") / "speeches@L1" / "train.bin"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"speeches@L1/train\.bin: .* bytes where the card says"):
        Batches(node(store, {"speeches": 1}), Store(tmp_path), {})
    path.unlink()
    with pytest.raises(UserError, match=r"train\.bin: missing"):
        Batches(node(store, {"speeches": 1}), Store(tmp_path), {})


def test_heldout_is_spread_over_the_text(built):
    store, _ = built
    folder = store.pool("small")
    some, every = heldout(folder, "qa", 5, T), heldout(folder, "qa", 10**6, T)
    card = read_card(store, "small")
    expected = sum((card.sources[name].variants["L5"].heldout_tokens - 1) // T for name in ("sums", "asked"))
    assert some.tokens.shape == (5, T + 1) and some.target_bytes.shape == (5, T)
    assert len(every.tokens) == expected
    assert {tuple(row) for row in some.tokens.tolist()} <= {tuple(row) for row in every.tokens.tolist()}
    with pytest.raises(UserError, match="no held-out sequence"):
        heldout(folder, "music", 5, T)


def test_heldout_bytes_add_up(built):
    """The bytes of all targets are the bytes of the text they decode to."""
    from tokenizers import Tokenizer

    store, _ = built
    tokenizer = Tokenizer.from_file(str(store.pool("small") / "tokenizer.json"))
    for row, sizes in zip(*vars(heldout(store.pool("small"), "general", 8, T)).values(), strict=True):
        assert sizes.sum() == len(tokenizer.decode([one for one in row[1:].tolist() if one]).encode())


def test_too_short_a_source_is_refused(built):
    with pytest.raises(UserError, match="do not hold one sequence"):
        shard(built[0]).chunks(np.arange(3), 0, 10**6)
