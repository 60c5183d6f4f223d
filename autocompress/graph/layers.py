"""How aten calls with parameters become modules again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class UnsupportedLayer(ValueError):  # noqa: N818 - tells the capture to keep the aten call
    """This call has no equal among the layers; it stays an aten call."""


class FeatureDropout(nn.Dropout):
    """Dropout of whole channels, as ``nn.Dropout2d``."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base class's name
        """``(n, channels, ...)``, shape kept."""
        return torch.feature_dropout(input, self.p, self.training)


def _set(module: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    for name, value in tensors.items():
        if value is None:
            continue
        value = value.detach().clone()
        if name in module._parameters:
            setattr(module, name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)
    return module


def _conv2d(
    rank: int,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> nn.Module:
    spans = [d * (k - 1) for d, k in zip(pair(dilation), weight.shape[2:], strict=True)]
    if padding == "same" and any(span % 2 for span in spans):
        raise UnsupportedLayer("padding 'same' is uneven under this kernel")
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=pair(stride),
        padding=padding if isinstance(padding, str) else pair(padding),
        dilation=pair(dilation),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return _set(conv, weight=weight, bias=bias)


def conv_pads(module: nn.Conv2d) -> list[int]:
    """Padding as ONNX writes it: top, left, bottom, right."""
    if module.padding == "same":
        spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        before = [s // 2 for s in spans]
        return [*before, *(s - b for s, b in zip(spans, before, strict=True))]
    if isinstance(module.padding, str):
        return [0, 0, 0, 0]
    height, width = module.padding[0], module.padding[-1]
    return [height, width, height, width]


def kernel_padding(module: nn.Conv2d, kernel: int | None) -> tuple[int, int]:
    """Padding (height, width) that keeps the output size under a cropped kernel."""
    if isinstance(module.padding, str):
        if module.padding == "valid":
            return (0, 0)
        spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        full = (spans[0] // 2, spans[1] // 2)
    else:
        full = pair(module.padding)
    if kernel is None:
        return full
    return (
        full[0] - module.dilation[0] * (module.kernel_size[0] - kernel) // 2,
        full[1] - module.dilation[1] * (module.kernel_size[1] - kernel) // 2,
    )


def pair(value: Any) -> tuple[int, int]:
    """``k``, ``(k,)`` or ``(k, l)`` as the height and width it stands for."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    return (int(items[0]), int(items[-1]))


def _linear(rank: int, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _set(linear, weight=weight, bias=bias)


def _embedding(rank: int, weight: torch.Tensor, padding_idx: int = -1, *settings: Any) -> nn.Module:
    """One that looks up; its row of padding is not trained. What else is set scales gradients."""
    rows, width = weight.shape
    padding = padding_idx if padding_idx >= 0 else None
    return _set(nn.Embedding(rows, width, padding, device="meta"), weight=weight)


def _batch_norm(
    rank: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> nn.Module:
    if running_mean is None or running_var is None or training:
        raise UnsupportedLayer("batch norm over the batch's own statistics")
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    norm = kind(running_mean.shape[0], eps=eps, momentum=momentum, affine=weight is not None)
    return _set(norm, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)


def _layer_norm(
    rank: int,
    shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> nn.Module:
    norm = nn.LayerNorm(
        [int(n) for n in shape],
        eps=eps,
        elementwise_affine=weight is not None,
        bias=bias is not None,
    )
    return _set(norm, weight=weight, bias=bias)


def _group_norm(
    rank: int,
    groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> nn.Module:
    if weight is None:
        raise UnsupportedLayer("group norm without parameters")
    return _set(nn.GroupNorm(groups, weight.shape[0], eps=eps), weight=weight, bias=bias)


def _dropout(rank: int, p: float, train: bool) -> nn.Module:
    return nn.Dropout(p)


def _feature_dropout(rank: int, p: float, train: bool) -> nn.Module:
    return FeatureDropout(p)


#: aten overload -> builder of the module from the input's rank and the call's other arguments.
LAYER_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "aten.conv2d.default": _conv2d,
    "aten.conv2d.padding": _conv2d,
    "aten.linear.default": _linear,
    "aten.embedding.default": _embedding,
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.dropout.default": _dropout,
    "aten.dropout_.default": _dropout,
    "aten.feature_dropout.default": _feature_dropout,
    "aten.feature_dropout_.default": _feature_dropout,
}

#: aten overload -> position of the argument that is its input, where that is not the first.
INPUT_ARGUMENT: dict[str, int] = {"aten.embedding.default": 1}

#: aten overload -> positions of those of its other arguments that are parameters or buffers.
PARAMETER_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "aten.conv2d.default": (0, 1),
    "aten.conv2d.padding": (0, 1),
    "aten.linear.default": (0, 1),
    "aten.embedding.default": (0,),
    "aten.batch_norm.default": (0, 1, 2, 3),
    "aten.layer_norm.default": (1, 2),
    "aten.group_norm.default": (1, 2),
    "aten.dropout.default": (),
    "aten.dropout_.default": (),
    "aten.feature_dropout.default": (),
    "aten.feature_dropout_.default": (),
}
