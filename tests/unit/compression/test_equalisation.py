"""Scales that move between layers: the function stays, the ranges become alike."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import fx, nn

from autocompress.compression.repair.equalisation import equalise_ranges, smooth_activations
from autocompress.compression.repair.scale_pairs import move_scale, read_columns, scale_pairs
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from autocompress.graph.ops import Op


class Convolutions(nn.Module):
    """Pairs by ReLU, depthwise, pool and flatten; the sum and the tanh belong to none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b, self.c = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 1)
        self.d, self.e = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 5, 1)
        self.fc, self.out = nn.Linear(5 * 4, 9), nn.Linear(9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.a(x)))
        x = self.b(torch.relu(self.deep(x)))
        x = x + self.c(torch.relu(x))
        x = torch.tanh(self.d(x))
        x = nn.functional.max_pool2d(torch.relu(self.e(x)), 4).flatten(1)
        y: torch.Tensor = self.out(torch.relu(self.fc(x)))
        return y


class Attention(nn.Module):
    """A layer norm that three linear layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        y: torch.Tensor = torch.softmax(q @ k.transpose(1, 2), -1) @ v
        return y


def made(kind: str) -> tuple[fx.GraphModule, list[Op], torch.Tensor]:
    torch.manual_seed(0)
    model: nn.Module = Convolutions() if kind == "conv" else Attention()
    x = torch.randn(8, 3, 8, 8) if kind == "conv" else torch.randn(8, 5, 16)
    with torch.no_grad():  # channels of very different ranges
        for parameter in model.parameters():
            parameter.mul_(
                torch.logspace(-1, 1, len(parameter)).reshape(-1, *[1] * (parameter.dim() - 1))
            )
    graph = inspect_model(model.eval(), (x[:1],))
    plain = fold_batch_norm(realise(ElasticModel(graph, []), Candidate()))
    return plain, list(graph.operations(Candidate())), x


def test_pairs_of_convolutions() -> None:
    module, ops, _ = made("conv")
    found = {(pair.source, pair.readers, pair.area) for pair in scale_pairs(module, ops)}
    assert found == {
        ("a", ("deep",), 1), ("deep", ("b",), 1), ("e", ("fc",), 4), ("fc", ("out",), 1),
    }  # fmt: skip


def test_a_layer_norm_is_read_by_several() -> None:
    module, ops, _ = made("attention")
    (pair,) = scale_pairs(module, ops)
    assert (pair.source, set(pair.readers)) == ("norm", {"q", "k", "v"})


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_moving_scales_keeps_the_function(kind: str) -> None:
    module, ops, x = made(kind)
    moved = copy.deepcopy(module)
    for pair in scale_pairs(module, ops):
        channels = read_columns(moved, pair)[0].shape[1]
        move_scale(moved, pair, torch.rand(channels) * 3 + 0.2)
    with torch.no_grad():
        expected = module(x)
        assert torch.allclose(moved(x), expected, atol=1e-5 * float(expected.abs().max()))


def test_equalised_layers_have_equal_ranges() -> None:
    module, ops, x = made("conv")
    with torch.no_grad():
        expected = module(x)
        equalise_ranges(module, scale_pairs(module, ops), sweeps=50)
        assert torch.allclose(module(x), expected, atol=1e-5 * float(expected.abs().max()))
    for pair in scale_pairs(module, ops):
        source = module.get_submodule(pair.source)
        assert isinstance(source, nn.Conv2d | nn.Linear)
        given = source.weight.detach().abs().flatten(1).amax(1)
        (columns,) = read_columns(module, pair)
        read = columns.abs().transpose(0, 1).flatten(1).amax(1)
        assert torch.allclose(given, read, rtol=1e-2)


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_smoothed_activations_are_more_alike(kind: str) -> None:
    module, ops, x = made(kind)
    pairs = scale_pairs(module, ops)
    smoothed = copy.deepcopy(module)
    smooth_activations(smoothed, pairs, [x[:4], x[4:]])
    with torch.no_grad():
        expected = module(x)
        assert torch.allclose(smoothed(x), expected, atol=1e-5 * float(expected.abs().max()))
    pair = pairs[0]
    before, after = (_spread(m, pair.tensor, x) for m in (module, smoothed))
    assert after < 0.8 * before


def _spread(module: fx.GraphModule, node: str, x: torch.Tensor) -> float:
    """How far apart the channels' largest values are: standard deviation of their logarithms."""
    seen: dict[str, torch.Tensor] = {}

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            seen[n.name] = value
            return value

    with torch.no_grad():
        Keep(module).run(x)
    value = seen[node].abs()
    peaks = value.amax((0, 2, 3)) if value.dim() == 4 else value.flatten(0, -2).amax(0)
    return float(peaks.clamp_min(1e-6).log().std())
