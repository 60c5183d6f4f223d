"""Training the shared weights so that candidates work without training of their own.

Each step runs the largest candidate on the labels, then the smallest and random ones on the
largest's answers: the sandwich rule with in-place distillation (Yu & Huang 2019,
arXiv:1903.05134; Yu et al. 2020, BigNAS, arXiv:2003.11142).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from autocompress.compression.low_rank.registry import FORMS
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.space import SearchSpace
from autocompress.elastic.corners import smallest
from autocompress.elastic.layers import SERVES
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.training_state import TrainingState
from autocompress.errors import DataError, DivergedError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Batch = tuple[torch.Tensor, torch.Tensor]
#: Steps, or seconds, from one checkpoint to the next: with each begins the time that factors serve
#: for, so that it makes no difference whether they were fitted before it.
SAVED_EVERY, _SECONDS = 5 * SERVES, 60.0


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
    checkpoint: Path | None = None,
) -> int:
    """Train ``elastic`` in place by the sandwich rule.

    With a checkpoint it goes on where an earlier call with the same arguments was ended, however
    that was: losses and weights are those of a training that was never interrupted, as long as
    ``epochs`` gives the same batches for the same number. Random numbers of the forward pass
    (dropout) are drawn anew for each step from its number and the seed.

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
        checkpoint: file that the state is written to every :data:`SAVED_EVERY` steps, and where
            they are slow, about once a minute.

    Returns:
        The steps done, earlier calls' included.

    Raises:
        DivergedError: the loss is no longer finite.
        DataError: an epoch has no batches.
        StorageError: the checkpoint is damaged or of another training, or cannot be written.
    """
    settings = settings or ElasticTraining()
    optimizer = torch.optim.AdamW(
        elastic.parameters(), lr=settings.learning_rate, weight_decay=1e-4
    )
    about = {"seed": seed, "steps": steps, "learning_rate": settings.learning_rate}
    state = TrainingState(elastic, optimizer, np.random.default_rng([seed, 0xE1A5]), about)
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
    saved = time.monotonic()
    largest, least = space.decode(space.original), smallest(space)
    before = elastic.candidate
    elastic.train()
    try:
        for inputs, targets in _batches(epochs, state):
            if state.done >= steps or deadline():
                break
            schedule = 0.5 * (1 + math.cos(math.pi * min(1.0, state.done / max(1, steps))))
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * schedule
            drawn = (
                space.decode(space.sample(state.rng)) for _ in range(settings.random_candidates)
            )
            others = [quick_to_fit(candidate) for candidate in (least, *drawn)]
            elastic.at_step(state.done)
            optimizer.zero_grad(set_to_none=True)
            with (
                torch.random.fork_rng(devices=[]),
                torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16),
            ):
                torch.manual_seed((seed << 32) + state.done)
                value = _sandwich(
                    elastic, inputs, targets, largest, others, loss, distillation, teacher
                )
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss became {value} at step {state.done} of the elastic training; "
                    f"lower its learning rate ({settings.learning_rate}) or check the data"
                )
            torch.nn.utils.clip_grad_norm_(elastic.parameters(), settings.clip)
            optimizer.step()
            state.advance()
            progress(state.done, value)
            if checkpoint is not None and _is_due(state.done, saved):
                state.save(checkpoint)
                saved = time.monotonic()
    finally:
        elastic.at_step(None)
        elastic.eval()
        elastic.configure(before)
    return state.done


def _is_due(done: int, saved: float) -> bool:
    late = time.monotonic() - saved > _SECONDS
    return done % SAVED_EVERY == 0 or (late and done % SERVES == 0)


_WHOLE = LayerPolicy()


def quick_to_fit(candidate: Candidate) -> Candidate:
    """The candidate with layers whole whose factors take many sweeps to fit.

    A step would take half as long again, and what is near a layer's factors is near the layer.
    """
    slow = {
        name: replace(policy, rank=None, input_rank=None, factorization=_WHOLE.factorization)
        for name, policy in candidate.layers.items()
        if policy.rank is not None and FORMS[policy.factorization].iterative
    }
    return replace(candidate, layers={**candidate.layers, **slow}) if slow else candidate


def _batches(epochs: Callable[[int], Iterable[Batch]], state: TrainingState) -> Iterator[Batch]:
    """Batches from where the state is on; it is told of each that begins an epoch."""
    while True:
        empty = True
        for batch in itertools.islice(epochs(state.epoch), state.batch, None):
            empty = False
            yield batch
        if empty and state.batch == 0:
            raise DataError("the training data yields no batch of two or more examples")
        state.next_epoch()


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
