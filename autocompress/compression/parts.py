"""The pieces a layer is made of while it is being compressed.

A layer starts as one part. Techniques transform the list of parts: low rank turns one into
several, sparsity and quantisation change weights. The same parts are run by the elastic model
(where they are differentiable functions of the shared weights) and written into the realised model,
which is why the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Part:
    """One convolution, linear map or embedding.

    Attributes:
        kind: "conv", "linear" or "embedding".
        weight: ``(out, in / groups, height, width)``, ``(out, in)``, or the embedding's table
            ``(rows, width)``.
        bias: ``(out,)`` or None.
        stride: spatial stride (conv only).
        padding: spatial padding (conv only).
        dilation: spatial dilation (conv only).
        groups: convolution groups (conv only).
        inputs: gives the second moments of what the weight multiplies, shape ``(k, k)`` with
            ``k = weight[0].numel()`` in the weight's order; None where nothing is known of them.
        state: parts with equal ones, not None, have equal weights and inputs; for whoever wants
            to remember what was found for them.
        padding_idx: the row that is not trained (embedding only), or None.
    """

    kind: str
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    inputs: Callable[[], torch.Tensor] | None = None
    state: Hashable | None = None
    padding_idx: int | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run the part on ``x``."""
        if self.kind == "linear":
            return nn.functional.linear(x, self.weight, self.bias)
        if self.kind == "embedding":
            return nn.functional.embedding(x, self.weight, self.padding_idx)
        return nn.functional.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def with_weight(self, weight: torch.Tensor) -> Part:
        """The same part with another weight of the same shape."""
        return replace(self, weight=weight, state=None)

    def as_module(self) -> nn.Conv2d | nn.Linear | nn.Embedding:
        """A plain module with its own copy of the weights."""
        module: nn.Conv2d | nn.Linear
        bias = self.bias is not None
        if self.kind == "embedding":
            rows, width = self.weight.shape
            table = nn.Embedding(rows, width, self.padding_idx, device="meta")
            table.weight = nn.Parameter(self.weight.detach().clone())
            return table
        if self.kind == "linear":
            out, features = self.weight.shape
            module = nn.Linear(features, out, bias=bias, device="meta")
        else:
            out, channels, *kernel = self.weight.shape
            module = nn.Conv2d(
                channels * self.groups, out, (kernel[0], kernel[1]),
                self.stride, self.padding, self.dilation, self.groups, bias=bias, device="meta",
            )  # fmt: skip
        module.weight = nn.Parameter(self.weight.detach().clone())
        if self.bias is not None:
            module.bias = nn.Parameter(self.bias.detach().clone())
        return module


#: Turns a layer's parts into others.
Transform: TypeAlias = Callable[[Sequence[Part]], list[Part]]
