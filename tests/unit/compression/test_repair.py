"""Post-training repair: moments are right, codes and biases serve the inputs better."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from autocompress.compression.repair.adaround import learned_rounding
from autocompress.compression.repair.bias_correction import correct_bias
from autocompress.compression.repair.descent import descend
from autocompress.compression.repair.gptq import codes_with_feedback
from autocompress.compression.repair.moments import InputMoments, patches
from autocompress.compression.repair.moments import moments_of as input_moments
from autocompress.compression.repair.post_training import best_codes, repair_quantized
from autocompress.compression.repair.rows import CodeRows
from autocompress.compression.simulation import simulate_quantization
from autocompress.compression.stored.registry import weight_form
from autocompress.compression.stored_layers import SimulatedConv2d, SimulatedLinear
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.graph.inspect import inspect_model

SHAPES: dict[str, tuple[int, ...]] = {
    "conv": (6, 9, 9), "same": (6, 9, 9), "depthwise": (8, 7, 7), "grouped": (8, 7, 7),
    "linear": (24,), "sequence": (5, 24),
}  # fmt: skip


def made(kind: str) -> nn.Conv2d | nn.Linear:
    torch.manual_seed(0)
    if kind == "conv":
        return nn.Conv2d(6, 8, 3, stride=2, padding=1)
    if kind == "same":
        return nn.Conv2d(6, 8, 3, padding="same", dilation=2)
    if kind == "depthwise":
        return nn.Conv2d(8, 8, 3, padding=1, groups=8)
    if kind == "grouped":
        return nn.Conv2d(8, 12, (1, 3), groups=2)
    return nn.Linear(24, 10)


def correlated(*shape: int) -> torch.Tensor:
    """Inputs of neighbouring channels that go together, all with a mean."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, *shape, generator=generator)
    x = x + 0.9 * torch.roll(x, 1, dims=-1 if len(shape) < 3 else 1)
    return torch.relu(x + 0.3)


def stored(kind: str, bits: int) -> SimulatedConv2d | SimulatedLinear:
    layer = made(kind)
    form = weight_form(layer.weight.detach(), bits)
    if isinstance(layer, nn.Conv2d):
        return SimulatedConv2d(layer, form)
    return SimulatedLinear(layer, form)


def moments_of(layer: nn.Conv2d | nn.Linear, x: torch.Tensor) -> InputMoments:
    return input_moments(layer, torch.split(x, 16))


@pytest.mark.parametrize("kind", SHAPES)
def test_a_layer_is_its_patches_times_its_weight(kind: str) -> None:
    layer = made(kind)
    x = correlated(*SHAPES[kind])[:4]
    rows = patches(layer, x)
    groups = rows.shape[0]
    weight = layer.weight.reshape(groups, layer.weight.shape[0] // groups, -1)
    found = torch.einsum("gok,gnk->ngo", weight, rows).reshape(rows.shape[1], -1)
    assert layer.bias is not None
    found = found + layer.bias
    expected = layer(x)
    if isinstance(layer, nn.Conv2d):
        expected = expected.permute(0, 2, 3, 1).reshape(-1, layer.out_channels)
    assert torch.allclose(found, expected.reshape(found.shape), atol=1e-5)


ROUNDINGS: dict[str, Callable[[CodeRows], torch.Tensor]] = {
    "feedback": codes_with_feedback,
    "learned": learned_rounding,
    "best": best_codes,
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_chosen_codes_lose_less_of_the_outputs(kind: str, bits: int, rounding: str) -> None:
    layer = stored(kind, bits)
    x = correlated(*SHAPES[kind])
    original = layer.weight.detach().clone()
    before = _lost(layer, original, x)
    rows = _rows(layer, moments_of(layer, x))
    rows.write(layer, ROUNDINGS[rounding](rows))
    assert torch.allclose(layer.stored_weight(None), layer.weight, atol=1e-6)  # on the codes
    # nine weights have little to make up for each other with
    assert _lost(layer, original, x) < (1.05 if kind == "depthwise" else 0.92) * before


@pytest.mark.parametrize("kind", SHAPES)
def test_the_error_of_rows_is_that_of_the_outputs(kind: str) -> None:
    layer = stored(kind, 3)
    x = correlated(*SHAPES[kind])[:32]  # few enough for every patch to count
    moments = moments_of(layer, x)
    rows = _rows(layer, moments)
    steps = layer.form.scale(layer.weight, None).detach().double().reshape(rows.values.shape[:2])
    found = float((rows.errors(rows.nearest()) * steps.pow(2)).sum()) * moments.count
    # the moments were given a little more on their diagonal
    assert found == pytest.approx(_lost(layer, layer.weight.detach(), x), rel=0.03)


@pytest.mark.parametrize("kind", SHAPES)
def test_descent_ends_where_no_single_step_helps(kind: str) -> None:
    layer = stored(kind, 3)
    rows = _rows(layer, moments_of(layer, correlated(*SHAPES[kind])))
    rows.values[:, :, 0] = 0.0  # pruned
    start = rows.nearest()
    codes = descend(rows, start)
    least = rows.errors(codes)
    assert bool((least <= rows.errors(start) + 1e-9).all())
    assert bool((codes[:, :, 0] == 0).all())
    for column in range(1, codes.shape[2]):
        for step in (-1, 1):
            moved = codes.clone()
            moved[:, :, column] += step
            allowed = moved[:, :, column].abs() <= rows.levels
            assert bool((rows.errors(moved) >= least - 1e-9)[allowed].all())


def test_learned_rounding_stays_next_to_the_values() -> None:
    layer = stored("conv", 4)
    rows = _rows(layer, moments_of(layer, correlated(*SHAPES["conv"])))
    apart = (learned_rounding(rows) - rows.values)[rows.values.abs() < rows.levels]
    assert float(apart.abs().max()) <= 1.0


@pytest.mark.parametrize("kind", SHAPES)
def test_a_corrected_bias_leaves_no_mean_error(kind: str) -> None:
    layer = stored(kind, 3)
    x = correlated(*SHAPES[kind])
    original, bias = layer.weight.detach().clone(), copy.deepcopy(layer.bias)
    exact = made(kind)
    with torch.no_grad():
        exact.weight.copy_(original)
        assert exact.bias is not None
        assert bias is not None
        exact.bias.copy_(bias)
        axes = (0, 2, 3) if isinstance(layer, nn.Conv2d) else tuple(range(x.dim() - 1))
        correct_bias(layer, exact(x).mean(axes).double(), torch.split(x, 16))
        apart = (layer(x) - exact(x)).mean(axes)
    assert float(apart.abs().max()) < 1e-4


def _rows(layer: nn.Conv2d | nn.Linear, moments: InputMoments) -> CodeRows:
    rows = CodeRows.of(layer, moments)
    assert rows is not None
    return rows


def _lost(
    layer: SimulatedConv2d | SimulatedLinear, original: torch.Tensor, x: torch.Tensor
) -> float:
    """Squared error of the outputs that the rounding makes."""
    with torch.no_grad():
        rows = patches(layer, x)
        groups = rows.shape[0]
        lost = (layer.stored_weight(None) - original).reshape(
            groups, original.shape[0] // groups, -1
        )
        return float(torch.einsum("gok,gnk->gon", lost, rows).pow(2).sum())


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.out = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        y: torch.Tensor = self.out(x.mean((2, 3)))
        return y


@pytest.mark.parametrize("bits", [4, 3])
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
def test_a_repaired_graph_is_closer_to_the_original(bits: int, sparsity: float) -> None:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_((torch.rand_like(parameter) >= sparsity).float())
    x = correlated(3, 8, 8)
    graph = inspect_model(model, (x[:1],))
    policy = LayerPolicy(weight_bits=bits, activation_bits=8)
    candidate = Candidate(layers=dict.fromkeys(graph.layers, policy))
    plain = realise(ElasticModel(graph, []), candidate)
    simulated = simulate_quantization(plain, graph.operations(candidate), [x[:32]])
    zeros = {n: m.weight == 0 for n, m in simulated.named_modules() if isinstance(m, nn.Conv2d)}
    with torch.no_grad():
        wanted, before = model(x[32:]), simulated(x[32:])
        repaired = repair_quantized(simulated, [x[:16], x[16:32]], reference=plain)
        after = simulated(x[32:])
    assert repaired == ["first", "second", "out"]
    assert float((after - wanted).pow(2).mean()) < 0.7 * float((before - wanted).pow(2).mean())
    for name, zero in zeros.items():
        layer = simulated.get_submodule(name)
        assert isinstance(layer, SimulatedConv2d)
        assert bool((layer.stored_weight(None)[zero] == 0).all())


def test_eight_bits_need_no_repair() -> None:
    model, x = Small(), correlated(3, 8, 8)
    graph = inspect_model(model, (x[:1],))
    candidate = Candidate(layers={"first": LayerPolicy(weight_bits=8, activation_bits=8)})
    plain = realise(ElasticModel(graph, []), candidate)
    simulated = simulate_quantization(plain, graph.operations(candidate), [x])
    assert repair_quantized(simulated, [x], reference=plain) == []
