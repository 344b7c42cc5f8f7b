"""Shapes, FLOPs and peaks against published or hand-counted values."""

import pytest
import torch
import yaml

from davinci.accounting import machine
from davinci.accounting.accelerators import PEAK_FLOPS, peak_flops
from davinci.accounting.flops import forward_flops_per_token, train_flops_per_token
from davinci.accounting.shapes import matmul_parameters, parameters
from davinci.accounting.storage import checkpoint_bytes
from davinci.config import Cluster, Model, Optimizer, parse
from davinci.errors import UserError

CLUSTER = Cluster(
    kind="local",
    workers=None,
    threads=1,
    gpu="cpu_core",
    gpus=1,
    mfu=0.5,
    price=None,
    partition=None,
    account=None,
    qos=None,
    time_minutes=1,
    cpus_per_task=1,
    memory_gb=1,
    gpus_per_node=0,
    max_parallel=1,
)


@pytest.fixture
def paper_model(repository):
    data = yaml.safe_load((repository / "conf/model/3b.yaml").read_text())
    return parse(Model, {**data, "vocab_size": 151936})


def test_the_papers_model_has_3_09_billion_parameters(paper_model):
    assert parameters(paper_model, 151936) == pytest.approx(3.09e9, rel=2e-3)


def test_parameters_by_hand(paper_model):
    small = paper_model.model_copy(
        update={
            "layers": 2,
            "hidden_size": 8,
            "attention_heads": 2,
            "kv_heads": 1,
            "head_dim": 4,
            "mlp_intermediate_size": 16,
        }
    )
    block = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + (8 + 4 + 4) + 2 * 8
    assert parameters(small, 10) == 2 * block + 8 + 80
    untied = small.model_copy(update={"tie_embeddings": False})
    assert parameters(untied, 10) == parameters(small, 10) + 80
    assert matmul_parameters(untied, 10) == matmul_parameters(small, 10)


def test_flops_a_token(paper_model):
    flops = train_flops_per_token(paper_model, 151936, 4096)
    assert flops == 6 * matmul_parameters(paper_model, 151936) + 12 * 36 * 16 * 128 * 4096


def test_an_unknown_accelerator_names_the_nearest():
    assert peak_flops("h100") == PEAK_FLOPS["h100"]
    with pytest.raises(UserError, match=r"cluster.gpu: unknown accelerator 'h10'; nearest: h100"):
        peak_flops("h10")


def test_forward_is_a_third(paper_model):
    assert 3 * forward_flops_per_token(paper_model, 151936, 512) == train_flops_per_token(paper_model, 151936, 512)


def test_a_checkpoint_as_it_is_written(paper_model, tmp_path):
    from davinci.model.decoder import Decoder
    from davinci.training import checkpoints, optimizer

    shape = {"layers": 2, "hidden_size": 32, "attention_heads": 2, "kv_heads": 1, "head_dim": 16}
    small = paper_model.model_copy(update={**shape, "mlp_intermediate_size": 64, "vocab_size": 256})
    adam = Optimizer(name="adamw", beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, gradient_clip=1.0)
    model = Decoder(small, 256)
    model.initialise(0)
    adamw = optimizer.build(model, adam)
    model.hidden(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    adamw.step()
    state = checkpoints.State(
        version=checkpoints.VERSION,
        node="n",
        tokens=2,
        global_step=1,
        cursors={},
        window={},
        rolling=False,
        numerics={},
        digests={},
    )
    checkpoints.write(tmp_path / "2", model, optimizer.state_tensors(model, adamw), state)
    written = sum(file.stat().st_size for file in (tmp_path / "2").iterdir())
    assert abs(checkpoint_bytes(small, 256) - written) < 8_000
    checkpoints.write(tmp_path / "3", model, optimizer.state_tensors(model, adamw), state, model)
    written = sum(file.stat().st_size for file in (tmp_path / "3").iterdir())
    assert abs(checkpoint_bytes(small, 256, averaged=True) - written) < 8_000


def test_workers_leave_every_thread_a_core(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 6)
    assert machine.workers(CLUSTER) == 6
    assert machine.workers(CLUSTER.model_copy(update={"threads": 4})) == 1
    assert machine.workers(CLUSTER.model_copy(update={"workers": 3})) == 3
