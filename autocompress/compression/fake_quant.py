"""Fake quantisation: floats that take only the values which the deployed integers stand for.

Forward passes round half to even, as ONNX QuantizeLinear does; gradients pass straight through
inside the representable range and are zero outside it (Jacob et al. 2018, arXiv:1712.05877;
Krishnamoorthi 2018, arXiv:1806.08342).

Weight scales follow the weights at every step: ``scale = ratio * max|w| / levels`` per output
channel. The ratio is 1 for 8 bits; for 4 and 2 bits it is searched once, when the layer is made,
so that the squared error is smallest (see :mod:`autocompress.compression.weight_scale`). Scales
get no gradient. Activation ranges are buffers, set by calibration.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from autocompress.compression.forms import LEVELS
from autocompress.compression.weight_scale import clip_ratio, per_channel

#: Codes of an 8-bit activation.
ACTIVATION_LOW, ACTIVATION_HIGH = 0, 255
#: The largest absolute code of a bias, a factor of two below int32's limit.
_BIAS_LIMIT = 2.0**30
_FLOOR = 1e-8


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        low: int,
        high: int,
    ) -> torch.Tensor:
        codes = torch.round(x / scale).add_(zero_point)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((codes >= low) & (codes <= high))
        return codes.clamp_(low, high).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None


class _RoundTo(torch.autograd.Function):
    """A value computed elsewhere, with the gradient of the original."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None


def fake_quantize(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int
) -> torch.Tensor:
    """``(clamp(round(x / scale) + zero_point, low, high) - zero_point) * scale``.

    Args:
        x: any shape.
        scale: broadcastable to ``x``, positive.
        zero_point: broadcastable to ``x``, holding whole numbers.
        low: smallest code.
        high: largest code.
    """
    return cast(torch.Tensor, _FakeQuantize.apply(x, scale, zero_point, low, high))


def straight_through(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value``, with the gradient passed to ``x`` unchanged; same shapes."""
    return cast(torch.Tensor, _RoundTo.apply(x, value))


def fake_quantize_weight(
    weight: torch.Tensor, bits: int, ratio: torch.Tensor | None = None
) -> torch.Tensor:
    """A weight as it is stored with so many bits; differentiable.

    Args:
        weight: shape ``(out, ...)``.
        bits: 32 (unchanged), 16 (rounded to half precision), 8, 4 or 2.
        ratio: clipping ratios of shape ``(out,)``; None searches them.
    """
    if bits == 32:
        return weight
    if bits == 16:
        return straight_through(weight, as_half(weight.detach()).float())
    ratio = clip_ratio(weight, bits) if ratio is None else ratio
    scale = per_channel(weight_scale(weight, bits, ratio), weight)
    return fake_quantize(weight, scale, scale.new_zeros(()), -LEVELS[bits], LEVELS[bits])


def as_half(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` in half precision, saturated at its largest finite value."""
    limit = torch.finfo(torch.float16).max
    return weight.clamp(-limit, limit).half()


def weight_scale(weight: torch.Tensor, bits: int, ratio: torch.Tensor) -> torch.Tensor:
    """Step of each output channel, shape ``(out,)``; positive even for channels of zeros."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return (largest * ratio / LEVELS[bits]).clamp_min(_FLOOR)


class ActivationQuantizer(nn.Module):
    """Fake quantisation of an activation tensor to uint8, asymmetric, one scale per tensor.

    Attributes:
        scale: buffer, 0-dimensional: the step.
        zero_point: buffer, 0-dimensional: the code of 0, a whole number in 0..255.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def set_range(self, low: float, high: float) -> None:
        """Cover ``[low, high]``, widened to hold 0; an empty range becomes ``[0, 1]``.

        The step is a millionth smaller than the range needs, so that rounding never keeps either
        end from the first or last code: clipping to the range then equals saturation.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-12:
            high = low + 1.0
        step = (high - low) / ACTIVATION_HIGH * (1.0 - 1e-6)
        scale = torch.tensor(step, dtype=torch.float32)
        zero = torch.round(torch.tensor(-low) / scale).clamp(ACTIVATION_LOW, ACTIVATION_HIGH)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest representable value."""
        scale, zero = float(self.scale), float(self.zero_point)
        return (ACTIVATION_LOW - zero) * scale, (ACTIVATION_HIGH - zero) * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` rounded to representable values; same shape."""
        return fake_quantize(x, self.scale, self.zero_point, ACTIVATION_LOW, ACTIVATION_HIGH)

    def extra_repr(self) -> str:
        """The range, for printing."""
        low, high = self.range
        return f"{low:.4g}..{high:.4g}"


class StoredLayer:
    """What a simulated convolution and a simulated linear layer have in common.

    Mixed into ``nn.Conv2d`` and ``nn.Linear``, whose ``weight`` and ``bias`` stay the float
    parameters that training updates.

    Attributes:
        weight_bits: 16, 8, 4 or 2.
        clip_ratio: buffer, shape ``(out,)`` (absent for 16 bits).
    """

    clip_ratio: torch.Tensor | None
    weight_bits: int

    @property
    def _floats(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The float weight and bias."""
        own = cast("nn.Linear", self)
        return own.weight, own.bias

    def search_clipping(self) -> None:
        """Search the clipping ratios again, from the weights as they are now."""
        if self.clip_ratio is not None:
            self.clip_ratio.copy_(clip_ratio(self._floats[0], self.weight_bits))

    def scale(self, input_scale: torch.Tensor | None) -> torch.Tensor:
        """Step of each output channel, shape ``(out,)``.

        With an input scale the bias is an int32 in units of ``input_scale * scale``; the step is
        widened where the bias would overflow.
        """
        if self.clip_ratio is None:
            raise TypeError(f"weights of {self.weight_bits} bits have no scale")
        weight, bias = self._floats
        scale = weight_scale(weight, self.weight_bits, self.clip_ratio)
        if input_scale is not None and bias is not None:
            needed = bias.detach().abs() / (input_scale * _BIAS_LIMIT)
            scale = torch.maximum(scale, needed)
        return scale

    def codes(self, input_scale: torch.Tensor | None) -> torch.Tensor:
        """The stored weights: int8 codes (or half-precision floats for 16 bits)."""
        weight = self._floats[0].detach()
        if self.clip_ratio is None:
            return as_half(weight)
        levels = LEVELS[self.weight_bits]
        codes = torch.round(weight / per_channel(self.scale(input_scale), weight))
        return codes.clamp(-levels, levels).to(torch.int8)

    def bias_codes(self, input_scale: torch.Tensor) -> torch.Tensor | None:
        """The stored bias of an integer layer: int32, shape ``(out,)``."""
        bias = self._floats[1]
        if bias is None:
            return None
        step = (input_scale * self.scale(input_scale)).double()
        return torch.round(bias.detach().double() / step).to(torch.int32)

    def stored_weight(self, input_scale: torch.Tensor | None) -> torch.Tensor:
        """The weight as the runtime sees it; differentiable in the float weight."""
        weight = self._floats[0]
        if self.clip_ratio is None:
            return fake_quantize_weight(weight, self.weight_bits)
        scale = per_channel(self.scale(input_scale), weight)
        levels = LEVELS[self.weight_bits]
        return fake_quantize(weight, scale, scale.new_zeros(()), -levels, levels)

    def stored_bias(self, input_scale: torch.Tensor | None) -> torch.Tensor | None:
        """The bias as the runtime sees it; differentiable in the float bias."""
        bias = self._floats[1]
        if input_scale is None or bias is None:
            return bias
        step = (input_scale * self.scale(input_scale)).double()
        codes = torch.round(bias.detach().double() / step)
        return straight_through(bias, (codes * step).float())

    def _adopt(self, module: nn.Conv2d | nn.Linear, bits: int) -> None:
        own = cast(nn.Module, self)
        own.register_parameter("weight", cast(nn.Parameter, module.weight))
        own.register_parameter("bias", cast("nn.Parameter | None", module.bias))
        self.weight_bits = bits
        ratio = None if bits == 16 else clip_ratio(module.weight, bits)
        own.register_buffer("clip_ratio", ratio)
        for key, child in module.named_children():
            own.add_module(key, child)


class SimulatedConv2d(StoredLayer, nn.Conv2d):
    """A convolution with weights (and, given an input scale, bias) as they are stored."""

    def __init__(self, module: nn.Conv2d, bits: int) -> None:
        nn.Conv2d.__init__(
            self,
            module.in_channels,
            module.out_channels,
            cast(tuple[int, int], module.kernel_size),
            cast(tuple[int, int], module.stride),
            module.padding,  # type: ignore[arg-type]
            cast(tuple[int, int], module.dilation),
            module.groups,
            module.bias is not None,
            device="meta",
        )
        self._adopt(module, bits)

    def forward(self, x: torch.Tensor, input_scale: torch.Tensor | None = None) -> torch.Tensor:
        """As the plain layer; ``input_scale`` is the 0-dimensional step of ``x``, if quantised."""
        weight, bias = self.stored_weight(input_scale), self.stored_bias(input_scale)
        return cast(torch.Tensor, self._conv_forward(x, weight, bias))


class SimulatedLinear(StoredLayer, nn.Linear):
    """A linear layer with weights (and, given an input scale, bias) as they are stored."""

    def __init__(self, module: nn.Linear, bits: int) -> None:
        nn.Linear.__init__(
            self, module.in_features, module.out_features, module.bias is not None, device="meta"
        )
        self._adopt(module, bits)

    def forward(self, x: torch.Tensor, input_scale: torch.Tensor | None = None) -> torch.Tensor:
        """As the plain layer; ``input_scale`` is the 0-dimensional step of ``x``, if quantised."""
        weight, bias = self.stored_weight(input_scale), self.stored_bias(input_scale)
        return nn.functional.linear(x, weight, bias)
