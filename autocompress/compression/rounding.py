"""Rounding with gradients: forward passes round, backward passes let the gradient through.

Forward passes round half to even, as ONNX QuantizeLinear does; gradients pass straight through
inside the representable range and are zero outside it (Jacob et al. 2018, arXiv:1712.05877;
Krishnamoorthi 2018, arXiv:1806.08342). A step that is learned gets the gradient of Esser et al.
2020 (LSQ, arXiv:1902.08153).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch


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
        if not any(ctx.needs_input_grad[:2]):
            codes = torch.round(x / scale).add_(zero_point)
            return codes.clamp_(low, high).sub_(zero_point).mul_(scale)
        steps = x / scale
        codes = torch.round(steps).add_(zero_point)
        inside = (codes >= low) & (codes <= high)
        codes = codes.clamp_(low, high).sub_(zero_point)
        if ctx.needs_input_grad[1]:
            # equation 3: what a step's growth does to a value inside, and to one at either end
            ctx.save_for_backward(inside, torch.where(inside, codes - steps, codes))
            ctx.shape, ctx.high = scale.shape, high
        else:
            ctx.save_for_backward(inside)
        return codes * scale

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inside = ctx.saved_tensors[0]
        along = grads[0] * inside if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return along, None, None, None, None
        growth = (grads[0] * ctx.saved_tensors[1]).sum_to_size(ctx.shape)
        # section 2.2: no larger than the weights' own, whatever their number
        each = inside.numel() / max(1, growth.numel())
        return along, growth / math.sqrt(each * ctx.high), None, None, None


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
        scale: broadcastable to ``x``, positive; it gets a gradient where it asks for one.
        zero_point: broadcastable to ``x``, holding whole numbers.
        low: smallest code.
        high: largest code.
    """
    return cast(torch.Tensor, _FakeQuantize.apply(x, scale, zero_point, low, high))


def straight_through(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value``, with the gradient passed to ``x`` unchanged; same shapes."""
    return cast(torch.Tensor, _RoundTo.apply(x, value))


def as_half(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` in half precision, saturated at its largest finite value."""
    limit = torch.finfo(torch.float16).max
    return weight.clamp(-limit, limit).half()
