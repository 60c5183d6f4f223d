"""What a factorised layer becomes: in the operations what is in the realised model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autocompress.compression.low_rank import LowRank
from autocompress.core.candidate import FACTORIZATIONS, Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import RequestError
from autocompress.graph.factors import LayerShape, factorizations, macs
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from autocompress.graph.operations import part_layers, part_names, whole_layer
from tests.unit.networks import ResNet, example, graph

COUNTS = {"svd": 2, "whitened": 2, "tucker": 3, "cp": 3, "spatial": 2}


@pytest.mark.parametrize("form", FACTORIZATIONS)
@pytest.mark.parametrize("width", [None, 9], ids=["full", "narrowed"])
def test_operations_are_the_realised_models(form: str, width: int | None) -> None:
    found = graph(ResNet)
    name, strided = "layer3.1.conv1", "layer2.0.conv1"
    candidate = Candidate(
        layers={
            name: LayerPolicy(rank=4, factorization=form, width=width),
            strided: LayerPolicy(rank=4, factorization=form),
        }
    )
    elastic = ElasticModel(found, [LowRank()])
    model = fold_batch_norm(realise(elastic, candidate))
    ops = found.operations(candidate)
    for layer in (name, strided):
        parts = [op for op in ops if (op.layer or "").startswith(f"{layer}.")]
        assert [op.layer for op in parts] == list(part_layers(layer, COUNTS[form]))
        assert [op.name for op in parts] == list(part_names(parts[-1].name, COUNTS[form]))
        assert [op.attribute("bias") for op in parts] == [0] * (COUNTS[form] - 1) + [1]
        for op in parts:
            assert whole_layer(op.layer or "", found.layers) == layer
            module = model.get_submodule(op.layer or "")
            assert isinstance(module, nn.Conv2d)
            assert tuple(module.weight.shape) == op.weight_shape
            assert module.stride == op.attribute("stride")
            assert module.groups == op.attribute("groups")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example(16, batch=1))
    assert sum(op.macs for op in ops) == counter.get_total_flops() // 2
    assert sum(op.parameters for op in ops) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("module", "forms"),
    [
        (nn.Conv2d(8, 8, 3), FACTORIZATIONS),
        (nn.Conv2d(8, 8, (1, 3)), ("svd", "whitened", "tucker", "cp")),
        (nn.Conv2d(8, 8, 1), ("svd", "whitened")),
        (nn.Conv2d(8, 8, 3, groups=2), ()),
    ],
    ids=["3x3", "1x3", "1x1", "grouped"],
)
def test_which_forms_a_layer_can_take(module: nn.Conv2d, forms: tuple[str, ...]) -> None:
    found = inspect_model(nn.Sequential(module), (torch.zeros(1, 8, 8, 8),))
    assert factorizations(found.layers["0"]) == forms
    for form in set(FACTORIZATIONS) - set(forms):
        candidate = Candidate(layers={"0": LayerPolicy(rank=2, factorization=form)})
        with pytest.raises(RequestError, match="layer '0' cannot take factorization"):
            found.operations(candidate)


def test_a_cropped_kernel_takes_the_form_away() -> None:
    found = inspect_model(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), (torch.zeros(1, 8, 8, 8),))
    candidate = Candidate({"kernel:0": 1}, {"0": LayerPolicy(rank=2, factorization="tucker")})
    assert [op.layer for op in found.operations(candidate)] == [None, "0", None]
    realised = realise(ElasticModel(found, [LowRank()]), candidate)
    assert isinstance(realised.get_submodule("0"), nn.Conv2d)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Conv2d(3, 4, (3, 5), (1, 2), (0, 2), (2, 1)),
        nn.Conv2d(3, 4, 1, 3),
        nn.Conv2d(3, 4, 4, 4, 2),
    ],
    ids=str,
)
def test_sizes_are_those_of_the_layer(conv: nn.Conv2d) -> None:
    shape = LayerShape.of(conv)
    for size in ((9, 9), (10, 13), (16, 8)):
        out = tuple(conv(torch.zeros(1, 3, *size)).shape[-2:])
        assert shape.output_size(size) == out
        assert shape.output_size(shape.input_size((out[0], out[1]))) == out
        assert macs((shape,), size) == conv.weight.numel() * out[0] * out[1]


def test_a_layer_called_twice_has_its_parts_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.conv(self.conv(x))).mean((2, 3))

    found = inspect_model(Twice(), (torch.zeros(1, 8, 8, 8),))
    candidate = Candidate(layers={"conv": LayerPolicy(rank=3, factorization="tucker")})
    model = realise(ElasticModel(found, [LowRank()]), candidate)
    parameters = sum(p.numel() for p in model.parameters())
    assert sum(op.parameters for op in found.operations(candidate)) == parameters
