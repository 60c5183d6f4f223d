"""Sparsity that grows while a model trains.

The schedule is that of Zhu & Gupta 2017 (arXiv:1710.01878): the share of zeros rises as
``final * (1 - (1 - t)^3)``, fast while there is much to spare and slowly at the end. Which weights
are zero is decided anew every few steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose

import torch
from torch import nn

from autocompress.compression.patterns.base import Pattern
from autocompress.compression.patterns.n_of_m import NOfM
from autocompress.compression.patterns.unstructured import Unstructured
from autocompress.compression.saliency.registry import SALIENCIES, make_saliency
from autocompress.errors import RequestError

#: Steps between two decisions about which weights are zero.
EVERY = 20


def cubic(progress: float) -> float:
    """Share of the final sparsity at ``progress`` in 0..1 (Zhu & Gupta 2017)."""
    return 1.0 - (1.0 - min(1.0, max(0.0, progress))) ** 3


@dataclass(frozen=True, slots=True)
class Schedule:
    """When zeros come in, in shares of the training.

    Attributes:
        criterion: one of :data:`~autocompress.compression.saliency.registry.SALIENCIES`.
        start: progress at which zeros begin.
        end: progress from which their share stays.
        every: steps between two decisions about which weights are zero.
    """

    criterion: str = "magnitude"
    start: float = 0.0
    end: float = 0.7
    every: int = EVERY

    def __post_init__(self) -> None:
        if self.criterion not in SALIENCIES:
            raise RequestError(
                f"criterion is {self.criterion!r}; use one of {', '.join(SALIENCIES)}"
            )
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise RequestError(
                f"start and end are {self.start}, {self.end}; use 0 <= start <= end <= 1"
            )
        if self.every < 1:
            raise RequestError(f"every is {self.every!r}; use at least 1 step")

    def share(self, progress: float) -> float:
        """Share of the final zeros at this progress; 1 from :attr:`end` on."""
        if progress >= self.end:
            return 1.0
        if progress <= self.start:
            return 0.0
        return cubic((progress - self.start) / (self.end - self.start))


@dataclass(frozen=True, slots=True)
class Goal:
    """Where gradual sparsity of a whole model ends.

    Attributes:
        sparsity: share of zeros, in [0, 1).
        criterion: one of :data:`~autocompress.compression.saliency.registry.SALIENCIES`.
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
        _check_share(self.sparsity)
        Schedule(self.criterion, self.start, self.end)


@dataclass(frozen=True, slots=True)
class LayerGoal:
    """Where gradual sparsity of one layer ends.

    Attributes:
        sparsity: share of zeros, in [0, 1); an N:M pattern's own.
        pattern: how they are laid out.
    """

    sparsity: float
    pattern: Pattern = Unstructured()  # noqa: RUF009 - immutable

    def __post_init__(self) -> None:
        _check_share(self.sparsity)
        if isinstance(self.pattern, NOfM) and not isclose(self.sparsity, self.pattern.sparsity):
            raise RequestError(
                f"sparsity is {self.sparsity!r} with pattern {self.pattern.name!r}, which makes a "
                f"share of {self.pattern.sparsity:g} zero; give that"
            )


class _Gradual(ABC):
    """Keeps zeros in a model's weights as the schedule asks; call it after each optimiser step."""

    def __init__(self, model: nn.Module, layers: Sequence[str], schedule: Schedule) -> None:
        modules = dict(model.named_modules())
        self.weights = {name: modules[name].weight for name in layers}
        self.schedule = schedule
        self.saliency = make_saliency(schedule.criterion)
        self.masks: dict[str, torch.Tensor] = {}
        self._before: dict[str, torch.Tensor] = {}  # the weights before the masks came
        self._calls = 0
        self._settled = False

    @abstractmethod
    def _choose(self, scores: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        """Masks that hold ``share`` of the final zeros."""

    @torch.no_grad()
    def __call__(self, progress: float) -> None:
        """Zero the weights that have to be, given the share of the training that is over.

        A weight that is let go again starts from the value that it was zeroed at.
        """
        last = progress >= self.schedule.end
        if not self._settled:
            self.saliency.observe(self.weights)
            if last or self._calls % self.schedule.every == 0:
                scores = self.saliency.scores(self.weights)
                for name, mask in self._choose(scores, self.schedule.share(progress)).items():
                    self._adopt(name, mask.to(self.weights[name].dtype))
                self._settled = last
        self._calls += 1
        for name, mask in self.masks.items():
            self.weights[name].mul_(mask)

    def _adopt(self, name: str, mask: torch.Tensor) -> None:
        weight = self.weights[name]
        if name in self.masks:
            free = self.masks[name] == 1
            weight.copy_(torch.where(free, weight, self._before[name]))
        self._before[name] = weight.detach().clone()
        self.masks[name] = mask

    def finish(self) -> None:
        """Reach the goal now, whatever the progress was: a training may end early."""
        self(1.0)

    @property
    def sparsity(self) -> float:
        """Share of zeros that the masks hold."""
        total = sum(mask.numel() for mask in self.masks.values())
        kept = sum(float(mask.sum()) for mask in self.masks.values())
        return 1.0 - kept / total if total else 0.0


class GradualSparsity(_Gradual):
    """Brings one share of zeros into a model, or into each of its tensors.

    Args:
        model: trained elsewhere; call the object after each optimiser step.
        layers: names of the layers whose weights take part.
        goal: where it ends.
        every: steps between two decisions about which weights are zero.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str], goal: Goal, *, every: int = EVERY
    ) -> None:
        super().__init__(model, layers, Schedule(goal.criterion, goal.start, goal.end, every))
        self.goal = goal

    def _choose(self, scores: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        return choose_masks(scores, self.goal.sparsity * share, across=self.goal.across)


class GradualLayers(_Gradual):
    """Brings each layer its own share of zeros, in its own pattern.

    On the way a layer's zeros are a part of those that its pattern would make now, the smallest
    scores first; at the end the pattern is kept exactly.

    Args:
        model: trained elsewhere; call the object after each optimiser step.
        goals: layer name to where it ends.
        schedule: when the zeros come in.
    """

    def __init__(
        self, model: nn.Module, goals: Mapping[str, LayerGoal], schedule: Schedule | None = None
    ) -> None:
        super().__init__(model, list(goals), schedule or Schedule())
        self.goals = dict(goals)

    def _choose(self, scores: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        found = {}
        for name, goal in self.goals.items():
            full = goal.pattern.mask(scores[name], goal.sparsity)
            found[name] = part_of_mask(full, scores[name], share)
        return found


def part_of_mask(mask: torch.Tensor, scores: torch.Tensor, share: float) -> torch.Tensor:
    """A mask with the ``share`` of another's zeros whose scores are smallest.

    Args:
        mask: 1 for what stays; any shape.
        scores: same shape.
        share: in [0, 1]; exactly ``round(share * zeros)`` zeros are left.
    """
    lost = (mask == 0).flatten().nonzero().squeeze(1)
    order = scores.flatten()[lost].argsort(stable=True)
    part = torch.ones_like(mask).flatten()
    part[lost[order[: round(share * len(lost))]]] = 0
    return part.reshape(mask.shape)


def choose_masks(
    scores: Mapping[str, torch.Tensor], sparsity: float, *, across: bool
) -> dict[str, torch.Tensor]:
    """1 for the weights that stay and 0 for the share ``sparsity`` with the smallest scores.

    Args:
        scores: by name, any shapes.
        sparsity: share of zeros, in [0, 1).
        across: whether the share is that of all tensors together, or of each.
    """
    anywhere = Unstructured()
    if across:
        sizes = [score.numel() for score in scores.values()]
        joined = torch.cat([score.flatten().double() for score in scores.values()])
        kept = torch.split(anywhere.mask(joined, sparsity), sizes)
    else:
        kept = tuple(anywhere.mask(score, sparsity) for score in scores.values())
    return {
        name: mask.reshape(score.shape)
        for (name, score), mask in zip(scores.items(), kept, strict=True)
    }


def _check_share(sparsity: float) -> None:
    if not 0.0 <= sparsity < 1.0:
        raise RequestError(f"sparsity is {sparsity!r}; it must be in [0, 1)")
