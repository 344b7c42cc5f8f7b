"""Shapes, FLOPs and peaks against published or hand-counted values."""

import pytest
import yaml

from davinci.accounting.accelerators import PEAK_FLOPS, peak_flops
from davinci.accounting.flops import train_flops_per_token
from davinci.accounting.shapes import matmul_parameters, parameters
from davinci.config import Model, parse
from davinci.errors import UserError


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
