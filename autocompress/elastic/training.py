"""Training the shared weights so that candidates work without training of their own.

Each step runs the largest candidate on the labels, then the smallest and random ones on the
largest's answers: the sandwich rule with in-place distillation (Yu & Huang 2019,
arXiv:1903.05134; Yu et al. 2020, BigNAS, arXiv:2003.11142).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autocompress.core.candidate import Candidate
from autocompress.core.space import SearchSpace
from autocompress.elastic.model import ElasticModel
from autocompress.errors import DataError, DivergedError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class ElasticTraining:
    """How the shared weights are trained.

    Attributes:
        learning_rate: peak of the cosine schedule.
        random_candidates: random candidates per step, besides the largest and the smallest.
        clip: largest gradient norm.
        bfloat16: compute in bfloat16, weights kept in float32.
    """

    learning_rate: float = 1e-3
    random_candidates: int = 1
    clip: float = 5.0
    bfloat16: bool = False


def smallest(space: SearchSpace) -> Candidate:
    """The candidate with the last option of every ordered choice."""
    genome = np.array(
        [len(c.options) - 1 if c.ordered else 0 for c in space.choices], dtype=np.int64
    )
    return space.decode(space.canonical(genome))


def train_elastic(
    elastic: ElasticModel,
    space: SearchSpace,
    epochs: Callable[[int], Iterable[Batch]],
    loss: Loss,
    distillation: Loss,
    *,
    steps: int,
    seed: int,
    teacher: torch.nn.Module | None = None,
    deadline: Callable[[], bool] = lambda: False,
    settings: ElasticTraining | None = None,
    progress: Callable[[int, float], None] = lambda step, value: None,
) -> int:
    """Train ``elastic`` in place by the sandwich rule.

    Args:
        elastic: the shared weights.
        space: whose candidates are drawn.
        epochs: epoch number to its batches ``(inputs, targets)``.
        loss: ``(outputs, targets)`` to a scalar.
        distillation: ``(outputs, teacher's outputs)`` to a scalar.
        steps: optimiser steps at the most.
        seed: of the candidates drawn.
        teacher: guides the largest candidate besides the labels; usually the user's model.
        deadline: asked before each step; True ends the training early.
        settings: learning rate and the like.
        progress: told the step and the largest candidate's loss.

    Returns:
        The steps done.

    Raises:
        DivergedError: the loss is no longer finite.
        DataError: an epoch has no batches.
    """
    settings = settings or ElasticTraining()
    rng = np.random.default_rng([seed, 0xE1A5])
    optimizer = torch.optim.AdamW(
        elastic.parameters(), lr=settings.learning_rate, weight_decay=1e-4
    )
    largest, least = space.decode(space.original), smallest(space)
    before = elastic.candidate
    elastic.train()
    done = 0
    for epoch in itertools.count():
        empty = True
        for inputs, targets in epochs(epoch):
            empty = False
            if done >= steps or deadline():
                elastic.eval()
                elastic.configure(before)
                return done
            schedule = 0.5 * (1 + math.cos(math.pi * min(1.0, done / max(1, steps))))
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule
            others = [
                least,
                *(space.decode(space.sample(rng)) for _ in range(settings.random_candidates)),
            ]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                value = _sandwich(
                    elastic, inputs, targets, largest, others, loss, distillation, teacher
                )
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} at step {done} of the elastic training; "
                    f"lower its learning rate ({settings.learning_rate}) or check the data"
                )
            torch.nn.utils.clip_grad_norm_(elastic.parameters(), settings.clip)
            optimizer.step()
            done += 1
            progress(done, value)
        if empty:
            raise DataError("the training data yields no batch of two or more examples")
    raise AssertionError("itertools.count ended")


def _sandwich(
    elastic: ElasticModel,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    largest: Candidate,
    others: Sequence[Candidate],
    loss: Loss,
    distillation: Loss,
    teacher: torch.nn.Module | None,
) -> float:
    elastic.configure(largest)
    outputs = elastic(inputs).float()
    total = loss(outputs, targets)
    if teacher is not None:
        with torch.no_grad():
            guide = teacher(inputs).float()
        total = 0.5 * total + 0.5 * distillation(outputs, guide)
    total.backward()  # type: ignore[no-untyped-call]
    answers = outputs.detach()
    elastic.update_norms(False)
    for candidate in others:
        elastic.configure(candidate)
        distillation(elastic(inputs).float(), answers).backward()  # type: ignore[no-untyped-call]
    elastic.update_norms(True)
    return float(total.detach())
