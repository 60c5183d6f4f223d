"""Sparsity that grows while a model trains.

The schedule is that of Zhu & Gupta 2017 (arXiv:1710.01878): the share of zeros rises as
``final * (1 - (1 - t)^3)``, fast while there is much to spare and slowly at the end. Which weights
are zero is decided anew every few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autocompress.compression.sparsity import largest_mask
from autocompress.errors import RequestError

Scores = Mapping[str, torch.Tensor]


def cubic(progress: float) -> float:
    """Share of the final sparsity at ``progress`` in 0..1 (Zhu & Gupta 2017)."""
    return 1.0 - (1.0 - min(1.0, max(0.0, progress))) ** 3


def magnitude(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Magnitudes (Han et al. 2015, arXiv:1506.02626); across tensors they favour large layers."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def layer_adaptive(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """LAMP scores, comparable across tensors (Lee et al. 2021, arXiv:2010.07611).

    A weight's square over the sum of the squares of all weights of its tensor that are not smaller.
    """
    found = {}
    for name, weight in weights.items():
        squares, order = weight.detach().flatten().double().pow(2).sort(descending=True)
        scores = torch.empty_like(squares)
        scores[order] = squares / squares.cumsum(0).clamp_min(1e-30)
        found[name] = scores.reshape(weight.shape)
    return found


CRITERIA: Mapping[str, Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "magnitude": magnitude,
    "layer_adaptive": layer_adaptive,
}


@dataclass(frozen=True, slots=True)
class Goal:
    """Where gradual sparsity ends.

    Attributes:
        sparsity: share of zeros, in [0, 1).
        criterion: "magnitude" or "layer_adaptive".
        across: whether weights of all tensors compete for the places that are left; otherwise each
            tensor gets the same share of zeros.
        start: progress at which zeros begin.
        end: progress from which their share stays.
    """

    sparsity: float
    criterion: str = "layer_adaptive"
    across: bool = True
    start: float = 0.0
    end: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise RequestError(f"sparsity is {self.sparsity!r}; it must be in [0, 1)")
        if self.criterion not in CRITERIA:
            raise RequestError(f"criterion is {self.criterion!r}; use one of {', '.join(CRITERIA)}")
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise RequestError(
                f"start and end are {self.start}, {self.end}; use 0 <= start <= end <= 1"
            )


class GradualSparsity:
    """Keeps the share of zeros of a model's weights at what the schedule asks for.

    Args:
        model: trained elsewhere; call the object after each optimiser step.
        layers: names of the layers whose weights take part.
        goal: where it ends.
        every: steps between two decisions about which weights are zero.
    """

    def __init__(self, model: nn.Module, layers: list[str], goal: Goal, *, every: int = 20) -> None:
        modules = dict(model.named_modules())
        self.weights = {name: modules[name].weight for name in layers}
        self.goal = goal
        self.every = every
        self.masks: dict[str, torch.Tensor] = {}
        self._calls = 0
        self._settled = False

    @torch.no_grad()
    def __call__(self, progress: float) -> None:
        """Zero the weights that have to be, given the share of the training that is over."""
        goal = self.goal
        last = progress >= goal.end
        if not self._settled and (last or self._calls % self.every == 0):
            span = max(1e-9, goal.end - goal.start)
            wanted = goal.sparsity * cubic(1.0 if last else (progress - goal.start) / span)
            self.masks = choose_masks(self.weights, wanted, goal.criterion, across=goal.across)
            self._settled = last
        self._calls += 1
        for name, mask in self.masks.items():
            self.weights[name].mul_(mask)

    @property
    def sparsity(self) -> float:
        """Share of zeros that the masks hold."""
        total = sum(mask.numel() for mask in self.masks.values())
        kept = sum(float(mask.sum()) for mask in self.masks.values())
        return 1.0 - kept / total if total else 0.0


def choose_masks(
    weights: Mapping[str, torch.Tensor], sparsity: float, criterion: str, *, across: bool
) -> dict[str, torch.Tensor]:
    """1 for the weights that stay and 0 for the share ``sparsity`` with the smallest scores.

    Args:
        weights: by name, any shapes.
        sparsity: share of zeros, in [0, 1).
        criterion: one of :data:`CRITERIA`.
        across: whether the share is that of all tensors together, or of each.
    """
    scores = CRITERIA[criterion](weights)
    if across:
        sizes = [score.numel() for score in scores.values()]
        joined = torch.cat([score.flatten().double() for score in scores.values()])
        kept = torch.split(largest_mask(joined, sparsity), sizes)
    else:
        kept = tuple(largest_mask(score, sparsity) for score in scores.values())
    return {
        name: mask.reshape(weights[name].shape).to(weights[name].dtype)
        for name, mask in zip(scores, kept, strict=True)
    }
