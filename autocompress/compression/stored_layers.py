"""Layers that compute with their weights (and integer biases) as the file holds them.

The float ``weight`` and ``bias`` stay the parameters that training updates, with those of the form;
scales follow the largest weights at every step.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from autocompress.compression.rounding import straight_through
from autocompress.compression.stored.base import StoredWeight, WeightForm

#: The largest absolute code of a bias, a factor of two below int32's limit.
_BIAS_LIMIT = 2.0**30


class StoredLayer:
    """What a simulated convolution, linear layer and embedding have in common.

    Mixed into ``nn.Conv2d``, ``nn.Linear`` and ``nn.Embedding``; the rows of an embedding's table
    are to it what output channels are to the others.

    Attributes:
        form: how the weight is stored.
    """

    form: WeightForm

    @property
    def weight_bits(self) -> int:
        """Bits per stored weight, as a policy names them."""
        return self.form.weight_bits

    @property
    def _floats(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The float weight and bias."""
        own = cast("nn.Linear", self)
        return own.weight, getattr(own, "bias", None)

    def refit(self) -> None:
        """Fit what the form knows of the weight again."""
        self.form.refit(self._floats[0].detach())

    def scale(self, input_scale: torch.Tensor | None) -> torch.Tensor:
        """Step of each output channel, shape ``(out,)``.

        With an input scale the bias is an int32 in units of ``input_scale * scale``; the step is
        widened where the bias would overflow.
        """
        return self.form.scale(self._floats[0], self._least(input_scale))

    def stored(self, input_scale: torch.Tensor | None) -> StoredWeight:
        """The weight as the file holds it."""
        return self.form.stored(self._floats[0], self._least(input_scale))

    def bias_codes(self, input_scale: torch.Tensor) -> torch.Tensor | None:
        """The stored bias of an integer layer: int32, shape ``(out,)``."""
        bias = self._floats[1]
        if bias is None:
            return None
        step = (input_scale * self.scale(input_scale).detach()).double()
        return torch.round(bias.detach().double() / step).to(torch.int32)

    def stored_weight(self, input_scale: torch.Tensor | None) -> torch.Tensor:
        """The weight as the runtime sees it; differentiable."""
        return self.form.rounded(self._floats[0], self._least(input_scale))

    def stored_bias(self, input_scale: torch.Tensor | None) -> torch.Tensor | None:
        """The bias as the runtime sees it; differentiable in the float bias."""
        bias = self._floats[1]
        if input_scale is None or bias is None:
            return bias
        step = (input_scale * self.scale(input_scale).detach()).double()
        codes = torch.round(bias.detach().double() / step)
        return straight_through(bias, (codes * step).float())

    def _least(self, input_scale: torch.Tensor | None) -> torch.Tensor | None:
        """The smallest steps with which the bias fits; None in a float layer."""
        weight, bias = self._floats
        if input_scale is None:
            return None
        if bias is None:
            return weight.new_zeros(weight.shape[0])
        return bias.detach().abs() / (input_scale * _BIAS_LIMIT)

    def _adopt(self, module: nn.Conv2d | nn.Linear | nn.Embedding, form: WeightForm) -> None:
        own = cast(nn.Module, self)
        own.register_parameter("weight", cast(nn.Parameter, module.weight))
        if not isinstance(module, nn.Embedding):
            own.register_parameter("bias", cast("nn.Parameter | None", module.bias))
        for key, child in module.named_children():
            own.add_module(key, child)
        form.learn()
        own.add_module("form", form)


class SimulatedConv2d(StoredLayer, nn.Conv2d):
    """A convolution with weights (and, given an input scale, bias) as they are stored."""

    def __init__(self, module: nn.Conv2d, form: WeightForm) -> None:
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
        self._adopt(module, form)

    def forward(self, x: torch.Tensor, input_scale: torch.Tensor | None = None) -> torch.Tensor:
        """As the plain layer; ``input_scale`` is the 0-dimensional step of ``x``, if quantised."""
        weight, bias = self.stored_weight(input_scale), self.stored_bias(input_scale)
        return cast(torch.Tensor, self._conv_forward(x, weight, bias))


class SimulatedLinear(StoredLayer, nn.Linear):
    """A linear layer with weights (and, given an input scale, bias) as they are stored."""

    def __init__(self, module: nn.Linear, form: WeightForm) -> None:
        nn.Linear.__init__(
            self, module.in_features, module.out_features, module.bias is not None, device="meta"
        )
        self._adopt(module, form)

    def forward(self, x: torch.Tensor, input_scale: torch.Tensor | None = None) -> torch.Tensor:
        """As the plain layer; ``input_scale`` is the 0-dimensional step of ``x``, if quantised."""
        weight, bias = self.stored_weight(input_scale), self.stored_bias(input_scale)
        return nn.functional.linear(x, weight, bias)


class SimulatedEmbedding(StoredLayer, nn.Embedding):
    """An embedding whose rows are as they are stored, each with a step of its own.

    Row-wise steps cost four bytes a row and follow the rows' very different sizes (Guan et al.
    2019, arXiv:1911.02079).
    """

    def __init__(self, module: nn.Embedding, form: WeightForm) -> None:
        nn.Embedding.__init__(
            self, module.num_embeddings, module.embedding_dim, module.padding_idx, device="meta"
        )
        self._adopt(module, form)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """As the plain layer: ids of any shape to rows ``(*ids.shape, width)``."""
        return nn.functional.embedding(ids, self.stored_weight(None), self.padding_idx)
