"""Features of two networks brought into one form: channels second, places alike."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from autocompress.errors import RequestError

#: Rows that an adapter's first weights are fitted to, at the most.
_ROWS = 1 << 14
#: Ridge of that fit, relative to the features' mean square.
_RIDGE = 1e-3


def channels_second(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """``(batch, channels, ...)`` in float32."""
    return (x.movedim(-1, 1) if channels_last else x).float()


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Mean over all places: ``(batch, channels, ...)`` to ``(batch, channels)``."""
    return x.flatten(2).mean(2) if x.dim() > 2 else x


def same_places(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ``(batch, channels, ...)``, averaged down to the smaller extent of each dimension.

    Raises:
        RequestError: one is an image where the other is a row of tokens.
    """
    if student.dim() != teacher.dim():
        raise RequestError(
            f"features of shapes {tuple(student.shape)} and {tuple(teacher.shape)} cannot be "
            "compared; use distillation 'response'"
        )
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _resized(student, size), _resized(teacher, size)


def _resized(x: torch.Tensor, size: list[int]) -> torch.Tensor:
    if list(x.shape[2:]) == size:
        return x
    if len(size) == 1:
        return F.adaptive_avg_pool1d(x, size[0])
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))


class Adapter(nn.Module):
    """A 1x1 convolution from one network's channels to another's.

    It starts where ridge regression puts it on the given features, so that its first gradients tell
    the student something.

    Args:
        source: features that it will read, shape ``(batch, channels, ...)``.
        target: features that it is to give, same batch and places.
    """

    def __init__(self, source: torch.Tensor, target: torch.Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            x, y = _rows(source), _rows(target)
            mean_x, mean_y = x.mean(0), y.mean(0)
            centred = x - mean_x
            gram = centred.T @ centred
            ridge = _RIDGE * gram.diagonal().mean().clamp(min=1e-8)
            gram.diagonal().add_(ridge)
            weight = torch.linalg.solve(gram, centred.T @ (y - mean_y)).T
        self.weight = nn.Parameter(weight.contiguous())
        self.bias = nn.Parameter(mean_y - weight @ mean_x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, source channels, ...)`` to ``(batch, target channels, ...)``."""
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Channels of places, shape ``(n, channels)``, evenly thinned out to a few thousand."""
    flat = x.detach().movedim(1, -1).flatten(0, -2)
    return flat[:: -(-len(flat) // _ROWS)]
