"""Layers whose weights are sliced, cropped and compressed as the candidate says.

Each holds the full weights. ``configure`` only stores small index tensors and transforms; the
forward pass reads views or gathers of the shared weights, so gradients reach them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import nn

from autocompress.compression.parts import Part, Transform
from autocompress.graph.layers import kernel_padding, pair


class Slice:
    """Kept indices along one axis; a view when they are the first ones."""

    def __init__(self, indices: torch.Tensor | None) -> None:
        self.indices = indices
        self.key = None if indices is None else indices.numpy().tobytes()
        self.prefix: int | None = None
        if indices is not None and torch.equal(indices, torch.arange(len(indices))):
            self.prefix = len(indices)

    def __call__(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        """``tensor`` restricted along ``axis``."""
        if self.indices is None:
            return tensor
        if self.prefix is not None:
            return tensor.narrow(axis, 0, self.prefix)
        return tensor.index_select(axis, self.indices)

    def __len__(self) -> int:
        return 0 if self.indices is None else len(self.indices)


_ALL = Slice(None)

#: Steps of a training for which what was fitted to a weight, such as a factorisation, serves.
SERVES = 20

#: Kernel sizes from which a depthwise kernel becomes the next smaller one by a learned transform.
_TRANSFORMED = (7, 5)


class ElasticLayer(nn.Module):
    """A convolution, linear layer or embedding in any width, kernel size and compression.

    Args:
        module: the full layer; its parameters become this layer's.

    Attributes:
        age: steps of the training that goes on; None where none does.
        moments: second moments of what the full weight multiplies, shape ``(k, k)`` with
            ``k = weight[0].numel()``; None where the inputs were not observed.
        shrinking: what a depthwise layer learns about its smaller kernels (see :func:`shrunk`).
    """

    def __init__(self, module: nn.Conv2d | nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self.moments = None
        self.weight = module.weight
        self.bias: nn.Parameter | None = getattr(module, "bias", None)
        self.full = [module]  # in a list: settings only, not a submodule
        self.shrinking = nn.ParameterDict(
            {str(size): torch.zeros((size - 2) ** 2, (size - 2) ** 2) for size in _steps(module)}
        )
        self.out = _ALL
        self.into = _ALL
        self.kernel: int | None = None
        self.transforms: list[Transform] = []
        self.age: int | None = None

    def reset(self) -> None:
        """Back to the full layer."""
        self.out = self.into = _ALL
        self.kernel = None
        self.transforms = []

    def sliced(self) -> Part:
        """The layer in the configured width and kernel size, before any transform."""
        module = self.full[0]
        if isinstance(module, nn.Embedding):
            return Part(
                "embedding", self.weight, state=self._state(), padding_idx=module.padding_idx
            )
        weight = self.out(self.weight, 0)
        bias = None if self.bias is None else self.out(self.bias, 0)
        inputs = None if self.moments is None else self.input_moments
        if isinstance(module, nn.Linear):
            return Part(
                "linear", self.into(weight, 1), bias, inputs=inputs, state=self._state()
            )  # fmt: skip
        depthwise = module.groups > 1
        if not depthwise:
            weight = self.into(weight, 1)
        if self.kernel is not None:
            weight = shrunk(weight, self.kernel, dict(self.shrinking.items()))
        return Part(
            "conv", weight, bias, pair(module.stride), kernel_padding(module, self.kernel),
            pair(module.dilation),
            weight.shape[0] if module.groups == module.out_channels > 1 else module.groups,
            inputs, self._state(),
        )  # fmt: skip

    @property
    def moments(self) -> torch.Tensor | None:
        """Second moments of what the full weight multiplies."""
        return self._moments

    @moments.setter
    def moments(self, value: torch.Tensor | None) -> None:
        self._moments = value
        # unlike an address and a version, never that of another layer or of earlier moments
        self._self = object()

    def input_moments(self) -> torch.Tensor:
        """:attr:`moments`, of what the sliced weight multiplies."""
        if self.moments is None:
            raise RuntimeError("the layer's inputs were not observed")
        places = torch.arange(len(self.moments)).reshape(1, *self.weight.shape[1:])
        kept = self.into(places, 1)
        if self.kernel is not None:
            kept = crop(kept, self.kernel)
        if kept.numel() == places.numel():
            return self.moments
        return self.moments[kept.flatten()][:, kept.flatten()]

    def _state(self) -> Hashable:
        """What decides the values of the sliced weight and of its inputs' moments.

        While the weights are trained, a few steps count as none: what was fitted to them a moment
        ago, such as the directions of a factorisation, still serves.
        """
        held = [self.weight] if self.moments is None else [self.weight, self.moments]
        if self.kernel is not None:
            held.extend(self.shrinking.values())
        aged = self.training and self.age is not None
        age = (self.age or 0) // SERVES
        tensors = tuple((t.data_ptr(), age if aged else t._version) for t in held)
        return (self._self, tensors, self.out.key, self.into.key, self.kernel)

    def parts(self) -> list[Part]:
        """What the layer computes now, differentiable in the shared weights."""
        parts = [self.sliced()]
        for transform in self.transforms:
            parts = transform(parts)
        return parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The configured layer; shapes as the plain layer's, in kept channels."""
        for part in self.parts():
            x = part(x)
        return x


class ElasticNorm(nn.Module):
    """A batch or layer norm restricted to the kept channels.

    In training, the running statistics are updated only at full width, and only while
    :attr:`updates` is set: for any other candidate they are re-estimated (see
    :mod:`autocompress.elastic.batch_norm`).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.kept = _ALL
        self.updates = True

    def realised(self) -> nn.Module:
        """A plain norm of the kept width with its own copy of everything."""
        return sliced_norm(self.module, self.kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the kept channels of ``x``."""
        module = self.module
        frozen = (
            self.training
            and not self.updates
            and isinstance(module, nn.modules.batchnorm._BatchNorm)
        )
        if self.kept.indices is None and not frozen:
            return module(x)  # type: ignore[no-any-return]
        weight = _optional(self.kept, getattr(module, "weight", None))
        bias = _optional(self.kept, getattr(module, "bias", None))
        if isinstance(module, nn.LayerNorm):
            return nn.functional.layer_norm(x, (len(self.kept),), weight, bias, module.eps)
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{type(module).__name__} cannot be narrowed")
        mean = _optional(self.kept, module.running_mean)
        variance = _optional(self.kept, module.running_var)
        training = self.training
        if training:
            mean = variance = None
        return nn.functional.batch_norm(x, mean, variance, weight, bias, training, 0.0, module.eps)


def _optional(kept: Slice, tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else kept(tensor, 0)


def sliced_norm(module: nn.Module, kept: Slice) -> nn.Module:
    """A plain copy of a norm, restricted to the kept channels."""
    tensors = {
        name: kept(tensor.detach(), 0).clone()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.dim() == 1
    }
    copy: nn.Module
    if isinstance(module, nn.LayerNorm):
        shape = (len(kept),) if kept.indices is not None else module.normalized_shape
        copy = nn.LayerNorm(
            shape, module.eps, module.elementwise_affine, bias=module.bias is not None
        )
        if kept.indices is None:
            tensors = {n: t.detach().clone() for n, t in module.named_parameters()}
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        width = len(kept) if kept.indices is not None else module.num_features
        copy = type(module)(width, module.eps, module.momentum, module.affine)
    elif isinstance(module, nn.GroupNorm):
        copy = nn.GroupNorm(module.num_groups, module.num_channels, module.eps, module.affine)
    else:
        raise TypeError(f"{type(module).__name__} is not a norm")
    copy.load_state_dict(tensors, strict=False)
    return copy


def shrunk(weight: torch.Tensor, kernel: int, learned: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A convolution's weight in a smaller kernel, by its centres in steps of two.

    Each centre, as a row of ``k = size * size`` values, goes through a linear map that all channels
    share, where there is one: the kernel transformation matrices of once-for-all networks (Cai et
    al. 2020, arXiv:1908.09791, section 3.2). What is learned is the map's difference from the
    identity, so zeros give the centre itself, and weight decay pulls towards it.

    Args:
        weight: ``(out, in / groups, height, width)``.
        kernel: the smaller size.
        learned: size before a step to the difference, shape ``(k, k)``.
    """
    height, width = weight.shape[2:]
    for size in range(height, kernel, -2) if height == width else ():
        weight = crop(weight, size - 2)
        if str(size) in learned:
            weight = weight + (weight.flatten(2) @ learned[str(size)]).reshape(weight.shape)
    return crop(weight, kernel)


def _steps(module: nn.Module) -> tuple[int, ...]:
    """Sizes from which a layer's kernel is transformed."""
    if not isinstance(module, nn.Conv2d) or not 1 < module.groups == module.out_channels:
        return ()
    height, width = module.kernel_size
    return tuple(size for size in _TRANSFORMED if size <= height and height == width and height % 2)


def crop(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """The centre ``kernel x kernel`` of a convolution's weight (a view)."""
    height, width = weight.shape[2:]
    top, left = (height - kernel) // 2, (width - kernel) // 2
    return weight[:, :, top : top + kernel, left : left + kernel]
