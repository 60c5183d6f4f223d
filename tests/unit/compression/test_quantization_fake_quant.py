from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.fake_quant import (
    ActivationQuantizer,
    SimulatedConv2d,
    SimulatedLinear,
    fake_quantize,
    fake_quantize_weight,
)
from autocompress.compression.forms import FORMS, LEVELS, form_of
from autocompress.compression.weight_scale import clip_ratio, per_channel


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


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_take_symmetric_codes_per_output_channel(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3) * torch.logspace(-3, 2, 6).reshape(-1, 1, 1, 1)
    rounded = fake_quantize_weight(weight, bits)
    for row, source in zip(rounded.flatten(1), weight.flatten(1), strict=True):
        values = row.unique()
        assert len(values) <= 2 * LEVELS[bits] + 1
        assert float((row - source).norm() / source.norm()) < {8: 0.01, 4: 0.12, 2: 0.5}[bits]
    assert torch.equal(fake_quantize_weight(-weight, bits), -rounded)


@pytest.mark.parametrize("bits", [4, 2])
def test_searched_scales_beat_the_maximum(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 200)
    plain = fake_quantize_weight(weight, bits, torch.ones(16))
    searched = fake_quantize_weight(weight, bits)
    before = (plain - weight).pow(2).sum(1)
    after = (searched - weight).pow(2).sum(1)
    assert bool((after <= before * (1 + 1e-6)).all())
    assert float(after.sum()) < 0.85 * float(before.sum())


@pytest.mark.parametrize("bits", [4, 2])
def test_searched_scales_are_close_to_the_best_of_a_fine_grid(bits: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(8, 60)
    found = (fake_quantize_weight(weight, bits) - weight).pow(2).sum(1)
    best = torch.full((8,), float("inf"))
    for ratio in torch.linspace(0.05, 1.0, 400):
        error = (fake_quantize_weight(weight, bits, ratio.expand(8)) - weight).pow(2).sum(1)
        best = torch.minimum(best, error)
    assert bool((found <= 1.06 * best).all())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_ratios_do_not_depend_on_a_channels_magnitude(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 40)
    factors = torch.tensor([1e-4, 0.3, 1.0, 7.0, 1e4])
    scaled = weight * factors[:, None]
    assert torch.allclose(clip_ratio(weight, bits), clip_ratio(scaled, bits), rtol=1e-3)


def test_zeros_stay_zeros_and_empty_channels_are_harmless() -> None:
    weight = torch.zeros(3, 8)
    weight[1, ::2] = torch.tensor([0.5, -0.2, 0.9, 0.1])
    for bits in (8, 4, 2):
        rounded = fake_quantize_weight(weight, bits)
        assert bool((rounded[weight == 0] == 0).all())
        assert bool(torch.isfinite(rounded).all())


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "linear"])
def test_stored_codes_stand_for_the_simulated_weights(kind: str, bits: int) -> None:
    torch.manual_seed(0)
    layer: SimulatedConv2d | SimulatedLinear
    if kind == "linear":
        layer, x = SimulatedLinear(nn.Linear(12, 7), bits), torch.randn(3, 12)
    else:
        groups = 8 if kind == "depthwise" else 1
        conv = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=groups)
        layer, x = SimulatedConv2d(conv, bits), torch.randn(3, 8, 9, 9)
    step = None if bits == 16 else torch.tensor(0.037)
    codes = layer.codes(step)
    if bits == 16:
        weight = codes.float()
    else:
        assert codes.dtype == torch.int8
        assert int(codes.abs().max()) <= LEVELS[bits]
        weight = codes.float() * per_channel(layer.scale(step), codes)
    assert torch.equal(weight, layer.stored_weight(step))
    if step is not None:
        bias = layer.bias_codes(step)
        assert bias is not None
        assert bias.dtype == torch.int32
        value = layer.stored_bias(step)
        assert value is not None
        assert torch.allclose(bias * (step * layer.scale(step)), value, rtol=1e-6)
    assert layer(x, step).shape[0] == 3


def test_a_bias_too_large_for_its_scale_widens_the_scale() -> None:
    linear = nn.Linear(4, 2)
    with torch.no_grad():
        linear.weight.mul_(1e-9)
        linear.bias.copy_(torch.tensor([100.0, 0.0]))
    layer = SimulatedLinear(linear, 8)
    step = torch.tensor(1e-3)
    codes = layer.bias_codes(step)
    assert codes is not None
    assert int(codes.abs().max()) <= 2**30
    bias = layer.stored_bias(step)
    assert bias is not None
    assert bias.tolist() == pytest.approx([100.0, 0.0], rel=1e-6)


def test_scales_follow_the_weights() -> None:
    layer = SimulatedLinear(nn.Linear(4, 2), 4)
    before = layer.scale(None)
    with torch.no_grad():
        layer.weight.mul_(2.0)
    assert torch.allclose(layer.scale(None), 2 * before)
    ratio = layer.clip_ratio
    assert ratio is not None
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 4))
    layer.search_clipping()
    assert ratio.shape == (2,)


def test_every_form_has_its_levels_and_integers_need_small_weights() -> None:
    for (weights, activations), form in FORMS.items():
        assert form_of(weights, activations) is form
        assert form.is_integer == (form.computes == "int8")
        assert weights in (32, 16, *LEVELS)
        assert (form.opset == 25) == (weights == 2)


def test_half_precision_saturates() -> None:
    weight = torch.tensor([[1e6, -1e6, 1.0]])
    assert np.isfinite(fake_quantize_weight(weight, 16).numpy()).all()
