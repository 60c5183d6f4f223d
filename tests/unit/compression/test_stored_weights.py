from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.clusters import cluster
from autocompress.compression.forms import CONTAINER_BITS, FORMS, LEVELS, form_of
from autocompress.compression.rounding import fake_quantize
from autocompress.compression.stored.registry import weight_form
from autocompress.compression.stored.shared import SharedValues, share
from autocompress.compression.stored.symmetric import SymmetricCodes
from autocompress.compression.stored_layers import SimulatedConv2d, SimulatedLinear
from autocompress.compression.weight_scale import clip_ratio, per_channel

BITS = sorted(LEVELS, reverse=True)


def rounded_to(weight: torch.Tensor, bits: int) -> torch.Tensor:
    return weight_form(weight, bits).rounded(weight, None)


def stored(
    layer: nn.Conv2d | nn.Linear, bits: int, **more: int
) -> SimulatedConv2d | SimulatedLinear:
    form = weight_form(layer.weight.detach(), bits, **more)  # type: ignore[arg-type]
    if isinstance(layer, nn.Conv2d):
        return SimulatedConv2d(layer, form)
    return SimulatedLinear(layer, form)


def test_it_rounds_half_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 3.49])
    codes = fake_quantize(x, torch.tensor(1.0), torch.tensor(0.0), -10, 10)
    assert codes.tolist() == [0.0, 2.0, 2.0, 0.0, -2.0, 3.0]


def test_gradients_stop_outside_the_range() -> None:
    x = torch.tensor([-5.0, -1.0, 0.2, 3.0, 9.0], requires_grad=True)
    fake_quantize(x, torch.tensor(1.0), torch.tensor(0.0), -1, 3).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


RANGES = st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)).map(sorted)


@given(RANGES)
@settings(max_examples=200, deadline=None)
def test_a_range_holds_zero_exactly_and_both_its_ends(ends: list[float]) -> None:
    quantizer = ActivationQuantizer()
    quantizer.set_range(*ends)
    scale, zero = float(quantizer.scale), float(quantizer.zero_point)
    assert scale > 0
    assert zero == round(zero)
    assert 0 <= zero <= 255
    assert float(quantizer(torch.zeros(()))) == 0.0
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if high - low < 1e-9:
        return
    codes = torch.round(torch.tensor([low, high]) / quantizer.scale) + quantizer.zero_point
    assert codes[0] <= 0
    assert codes[1] >= 255
    inside = torch.linspace(low, high, 101)
    assert float((quantizer(inside) - inside).abs().max()) <= 1.01 * scale


def test_a_range_from_zero_has_zero_point_zero() -> None:
    quantizer = ActivationQuantizer()
    quantizer.set_range(0.0, 6.0)
    assert float(quantizer.zero_point) == 0.0
    quantizer.set_range(0.0, 0.0)
    assert quantizer.range[1] == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_weights_take_symmetric_codes_per_output_channel(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3) * torch.logspace(-3, 2, 6).reshape(-1, 1, 1, 1)
    rounded = rounded_to(weight, bits)
    worst = {8: 0.01, 6: 0.03, 5: 0.06, 4: 0.12, 3: 0.25, 2: 0.5, 1: 0.75}
    for row, source in zip(rounded.flatten(1), weight.flatten(1), strict=True):
        values = row.unique()
        assert len(values) <= 2 * LEVELS[bits] + 1
        assert float((row - source).norm() / source.norm()) < worst[bits]
    assert torch.equal(rounded_to(-weight, bits), -rounded)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_searched_scales_beat_the_maximum(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 200)
    form = SymmetricCodes(weight, bits)
    searched = form.rounded(weight, None)
    form.clip_ratio.fill_(1.0)
    plain = form.rounded(weight, None)
    before = (plain - weight).pow(2).sum(1)
    after = (searched - weight).pow(2).sum(1)
    assert bool((after <= before * (1 + 1e-6)).all())
    assert float(after.sum()) < 0.85 * float(before.sum())


@pytest.mark.parametrize("bits", [6, 5, 4, 3, 2])
def test_searched_scales_are_close_to_the_best_of_a_fine_grid(bits: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(8, 60)
    form = SymmetricCodes(weight, bits)
    found = (form.rounded(weight, None) - weight).pow(2).sum(1)
    best = torch.full((8,), float("inf"))
    for ratio in torch.linspace(0.05, 1.0, 400):
        form.clip_ratio.fill_(float(ratio))
        error = (form.rounded(weight, None) - weight).pow(2).sum(1)
        best = torch.minimum(best, error)
    assert bool((found <= (1.06 if bits < 5 else 1.2) * best).all())


@pytest.mark.parametrize("bits", [b for b in BITS if b > 1])
def test_ratios_do_not_depend_on_a_channels_magnitude(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 40)
    factors = torch.tensor([1e-4, 0.3, 1.0, 7.0, 1e4])
    scaled = weight * factors[:, None]
    assert torch.allclose(clip_ratio(weight, bits), clip_ratio(scaled, bits), rtol=1e-3)


def test_zeros_stay_zeros_and_empty_channels_are_harmless() -> None:
    weight = torch.zeros(3, 8)
    weight[1, ::2] = torch.tensor([0.5, -0.2, 0.9, 0.1])
    for bits in BITS:
        rounded = rounded_to(weight, bits)
        assert bool((rounded[weight == 0] == 0).all())
        assert bool(torch.isfinite(rounded).all())


@pytest.mark.parametrize("bits", [16, *BITS])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "linear"])
def test_stored_codes_stand_for_the_simulated_weights(kind: str, bits: int) -> None:
    layer, x = _layer(kind)
    simulated = stored(layer, bits)
    step = None if bits == 16 else torch.tensor(0.037)
    held = simulated.stored(step)
    if bits == 16:
        weight = held.codes.float()
    else:
        assert held.codes.dtype == torch.int8
        assert held.bits == CONTAINER_BITS[bits]
        assert int(held.codes.abs().max()) <= LEVELS[bits]
        assert held.scale is not None
        weight = held.codes.float() * per_channel(held.scale, held.codes)
    assert torch.equal(weight, simulated.stored_weight(step))
    if step is not None:
        bias = simulated.bias_codes(step)
        assert bias is not None
        assert bias.dtype == torch.int32
        value = simulated.stored_bias(step)
        assert value is not None
        assert torch.allclose(bias * (step * simulated.scale(step)), value, rtol=1e-6)
    assert simulated(x, step).shape[0] == 3


def _layer(kind: str) -> tuple[nn.Conv2d | nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Linear(12, 7), torch.randn(3, 12)
    groups = 8 if kind == "depthwise" else 1
    return nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=groups), torch.randn(3, 8, 9, 9)


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("count", [4, 16, 256])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "linear"])
def test_indices_and_table_stand_for_the_shared_weights(
    kind: str, count: int, scaled: bool, integer: bool
) -> None:
    layer, x = _layer(kind)
    simulated = stored(layer, 8 if integer else 32, codebook=count, scaled=scaled)
    step = torch.tensor(0.037) if integer else None
    held = simulated.stored(step)
    assert held.table is not None
    assert held.codes.dtype == torch.uint8
    assert held.bits == (4 if count <= 16 else 8)
    assert len(held.table) <= count
    weight = held.table[held.codes.long()].float()
    if held.scale is not None:
        weight = weight * per_channel(held.scale, weight)
    assert torch.allclose(weight, simulated.stored_weight(step), rtol=1e-6, atol=0)
    assert (held.table.dtype == torch.int8) == integer
    simulated(x, step).sum().backward()
    assert isinstance(simulated.form, SharedValues)
    assert simulated.form.values.grad is not None
    assert float(simulated.form.values.grad.abs().max()) > 0


NUMBERS = st.sampled_from((0.0, 0.0, 0.1, -0.1, 0.5, 2.0, -3.0)) | st.floats(-9, 9)


@given(st.lists(NUMBERS, min_size=1, max_size=80), st.integers(2, 40))
@settings(max_examples=200, deadline=None)
def test_clusters_are_means_of_what_is_nearest(numbers: list[float], count: int) -> None:
    found = torch.tensor(numbers, dtype=torch.float64)
    values, indices = cluster(found, count)
    assert len(values) <= count
    assert bool((values[indices[found == 0].long()] == 0).all())
    nonzero = found != 0
    distance = (found[:, None] - values[None, :]).abs()
    if bool((found == 0).any()):
        distance = distance[:, 1:]
    if bool(nonzero.any()):
        mine = (found - values[indices.long()]).abs()[nonzero]
        assert bool((mine <= distance.amin(1)[nonzero] + 1e-6).all())


def test_enough_values_change_nothing() -> None:
    weight = torch.tensor([[0.0, 1.0, -2.0, 1.0], [3.0, 0.0, -2.0, 1.0]])
    assert torch.equal(SharedValues(weight, 4, scaled=False).rounded(weight, None), weight)


@pytest.mark.parametrize("count", [5, 16, 255, 256])
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_shared_values_of_scaled_channels_stay_when_channels_are_scaled(
    count: int, zeros: float
) -> None:
    """As batch norm does when it is folded, with negative factors, too."""
    torch.manual_seed(0)
    weight = torch.randn(6, 50)
    weight[torch.rand(6, 50) < zeros] = 0
    factors = torch.tensor([1.0, -1.0, 0.3, -7.0, 1e-3, -1e3])[:, None]
    plain = SharedValues(weight, count, scaled=True)
    folded = SharedValues(weight * factors, count, scaled=True)
    expected = plain.rounded(weight, None) * factors
    assert len(plain.values) == len(folded.values) == count
    assert torch.allclose(folded.rounded(weight * factors, None), expected, rtol=1e-4)


def test_a_drowned_channel_becomes_nothing() -> None:
    linear = nn.Linear(4, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(2, 4) * 1e-9)
        linear.bias.copy_(torch.tensor([100.0, 0.0]))
    step = torch.tensor(1e-3)
    signs = stored(copy.deepcopy(linear), 1).stored_weight(step)
    assert bool((signs[0] == 0).all())
    assert bool((signs[1] != 0).all())


def test_sharing_in_training_and_at_the_end_agree() -> None:
    torch.manual_seed(0)
    weight = torch.randn(12, 40)
    weight[torch.rand(12, 40) < 0.5] = 0
    for scaled in (False, True):
        early = share(weight, 16, scaled=scaled)(weight)
        late = SharedValues(weight, 16, scaled=scaled).rounded(weight, None)
        assert torch.allclose(early, late, atol=1e-6)
        assert bool((early[weight == 0] == 0).all())


def test_a_bias_too_large_for_its_scale_widens_the_scale() -> None:
    linear = nn.Linear(4, 2)
    with torch.no_grad():
        linear.weight.mul_(1e-9)
        linear.bias.copy_(torch.tensor([100.0, 0.0]))
    layer = stored(linear, 8)
    step = torch.tensor(1e-3)
    codes = layer.bias_codes(step)
    assert codes is not None
    assert int(codes.abs().max()) <= 2**30
    bias = layer.stored_bias(step)
    assert bias is not None
    assert bias.tolist() == pytest.approx([100.0, 0.0], rel=1e-6)


def test_scales_follow_the_weights() -> None:
    layer = stored(nn.Linear(4, 2), 4)
    before = layer.scale(None)
    with torch.no_grad():
        layer.weight.mul_(2.0)
    assert torch.allclose(layer.scale(None), 2 * before)
    assert isinstance(layer.form, SymmetricCodes)
    ratio = layer.form.clip_ratio.clone()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 4))
    layer.refit()
    assert not torch.equal(layer.form.clip_ratio, ratio)


def test_every_form_has_its_levels_and_integers_need_small_weights() -> None:
    for (weights, activations), form in FORMS.items():
        assert form_of(weights, activations) is form
        assert form.is_integer == (form.computes == "int8")
        assert weights in (32, 16, *LEVELS)
        assert (form.opset == 25) == (weights in (1, 2))
        assert form.file_bits >= weights


def test_half_precision_saturates() -> None:
    weight = torch.tensor([[1e6, -1e6, 1.0]])
    assert np.isfinite(rounded_to(weight, 16).numpy()).all()
