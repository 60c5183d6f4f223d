"""The exponential moving average of weights, which is better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Averages of all floating-point tensors of a model's state, running statistics included.

    The decay grows with the number of updates, ``min(decay, (1 + n) / (10 + n))``, so that a short
    training's average is not dominated by where it began (Polyak & Juditsky 1992; the warm-up is
    that of TensorFlow's ``ExponentialMovingAverage``).

    Args:
        model: whose weights are averaged.
        decay: share of the average that each update keeps, in the long run.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.updates = 0
        self._averages = {name: t.detach().clone() for name, t in self._current().items()}

    @torch.no_grad()
    def update(self) -> None:
        """The weights have changed."""
        self.updates += 1
        keep = min(self._decay, (1 + self.updates) / (10 + self.updates))
        current = self._current()
        torch._foreach_lerp_(
            list(self._averages.values()), [current[n] for n in self._averages], 1 - keep
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages in this block, and its own weights again afterwards."""
        held = {name: t.detach().clone() for name, t in self._current().items()}
        self.apply()
        try:
            yield
        finally:
            self._copy(held)

    def apply(self) -> None:
        """The model has the averages from now on."""
        self._copy(self._averages)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages by their names in the model's state."""
        return dict(self._averages)

    def take(self, tensors: Mapping[str, torch.Tensor], updates: int) -> None:
        """Go on from the averages that :meth:`tensors` gave after so many updates.

        Raises:
            ValueError: they are of another model.
        """
        shapes = {name: t.shape for name, t in self._averages.items()}
        if {name: t.shape for name, t in tensors.items()} != shapes:
            raise ValueError("the averages are of another model")
        for name, tensor in tensors.items():
            self._averages[name].copy_(tensor)
        self.updates = updates

    def _current(self) -> dict[str, torch.Tensor]:
        return {n: t for n, t in self._model.state_dict().items() if t.is_floating_point()}

    @torch.no_grad()
    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._current().items():
            tensor.copy_(tensors[name])
