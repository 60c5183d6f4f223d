"""Training the shared weights so that candidates work without training of their own.

Each step runs the largest candidate on the labels, then a few drawn ones on the largest's answers:
the sandwich rule with in-place distillation (Yu & Huang 2019, arXiv:1903.05134; Yu et al. 2020,
BigNAS, arXiv:2003.11142), without its fixed smallest candidate (see
:mod:`autocompress.elastic.drawing`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from autocompress.compression.low_rank.registry import FORMS
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.space import SearchSpace
from autocompress.elastic.averaging import WeightAverage
from autocompress.elastic.drawing import draw
from autocompress.elastic.layers import SERVES
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.schedule import Schedule
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
        learning_rate: peak of the schedule (see :class:`autocompress.elastic.schedule.Schedule`).
        drawn: candidates per step besides the largest.
        clip: largest gradient norm.
        bfloat16: compute in bfloat16 with channels last, weights kept in float32.
        growing: share of the steps over which candidates come to be as small as the smallest.
        averaging: decay of the average of the weights that the training ends with; 0 ends with the
            last weights.
        checks: how often the same candidates are scored over the training.
        patience: scores without a better one before the end is brought forward.
    """

    learning_rate: float = 1e-3
    drawn: int = 2
    clip: float = 5.0
    bfloat16: bool = False
    growing: float = 0.3
    averaging: float = 0.0
    checks: int = 20
    patience: int = 4


@dataclass(frozen=True, slots=True)
class ElasticTrained:
    """What an elastic training did.

    Attributes:
        steps: optimiser steps, earlier calls' included.
        ended_early: whether the candidates that were scored had stopped getting better.
    """

    steps: int
    ended_early: bool


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What is learnt by: labels, the largest candidate's answers, and a teacher's."""

    loss: Loss
    distillation: Loss
    teacher: torch.nn.Module | None


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
    seconds: float | None = None,
    settings: ElasticTraining | None = None,
    progress: Callable[[int, float], None] = lambda step, value: None,
    score: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
) -> ElasticTrained:
    """Train ``elastic`` in place by the sandwich rule.

    With a checkpoint it goes on where an earlier call with the same arguments was ended, however
    that was: losses and weights are those of a training that was never interrupted, as long as
    ``epochs`` gives the same batches for the same number and ``seconds`` set no pace. Random
    numbers of the forward pass (dropout) are drawn anew for each step from its number and the seed.

    Args:
        elastic: the shared weights.
        space: whose candidates are drawn.
        epochs: epoch number to its batches ``(inputs, targets)``.
        loss: ``(outputs, targets)`` to a scalar.
        distillation: ``(outputs, teacher's outputs)`` to a scalar.
        steps: optimiser steps at the most.
        seed: of the candidates drawn.
        teacher: guides the largest candidate besides the labels; usually the user's model.
        deadline: asked before each step; True ends the training early, at whatever rate it had.
        seconds: it takes so long at the most, earlier calls with the same checkpoint included. The
            learning rate falls with the steps or with the time, whichever is further.
        settings: learning rate and the like.
        progress: told the step and the largest candidate's loss.
        score: how good some candidates, always the same, are with the weights that ``elastic`` has
            then, larger is better; asked ``settings.checks`` times to end the training where
            nothing is gained any more. None never does.
        checkpoint: file that the state is written to every :data:`SAVED_EVERY` steps, and where
            they are slow, about once a minute.

    Raises:
        DivergedError: the loss is no longer finite.
        DataError: an epoch has no batches.
        StorageError: the checkpoint is damaged or of another training, or cannot be written.
    """
    settings = settings or ElasticTraining()
    state = _begin(elastic, settings, steps, seed)
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
    saved = began = time.monotonic()
    earlier = state.seconds
    lesson = _Lesson(loss, distillation, teacher)
    largest = space.decode(space.original)
    every = max(1, steps // max(1, settings.checks))
    before = elastic.candidate
    elastic.train()
    if settings.bfloat16:
        elastic.to(memory_format=torch.channels_last)
    try:
        for inputs, targets in _batches(epochs, state):
            state.seconds = earlier + time.monotonic() - began
            over = 0.0 if seconds is None else state.seconds / max(1e-3, seconds)
            if state.done >= state.schedule.end or over >= 1.0 or deadline():
                break
            reach = state.schedule.reach(state.done, over)
            others = [
                quick_to_fit(space.decode(draw(space, state.rng, reach=reach)))
                for _ in range(settings.drawn)
            ]
            rate = state.schedule.learning_rate(state.done, over)
            value = _step(state, inputs, targets, [largest, *others], lesson, settings, rate, seed)
            progress(state.done, value)
            if score is not None and state.done % every == 0:
                _judge(state, score, over)
            if checkpoint is not None and _is_due(state.done, saved):
                state.save(checkpoint)
                saved = time.monotonic()
        if state.average is not None and state.done:
            state.average.apply()
    finally:
        elastic.at_step(None)
        elastic.eval()
        elastic.to(memory_format=torch.contiguous_format)
        elastic.configure(before)
    return ElasticTrained(state.done, state.schedule.is_cut)


def _begin(
    elastic: ElasticModel, settings: ElasticTraining, steps: int, seed: int
) -> TrainingState:
    rate = settings.learning_rate
    about = {"seed": seed, "steps": steps, **asdict(settings)}
    del about["checks"]  # it may depend on how long a score takes
    return TrainingState(
        elastic,
        torch.optim.AdamW(elastic.parameters(), lr=rate, weight_decay=1e-4),
        np.random.default_rng([seed, 0xE1A5]),
        Schedule(steps, rate, growing=settings.growing, patience=settings.patience),
        WeightAverage(elastic, settings.averaging) if settings.averaging else None,
        about,
    )


def _step(
    state: TrainingState,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    candidates: Sequence[Candidate],
    lesson: _Lesson,
    settings: ElasticTraining,
    rate: float,
    seed: int,
) -> float:
    """One optimiser step of the largest candidate, which comes first, and the others; its loss."""
    elastic, optimizer = state.elastic, state.optimizer
    for group in optimizer.param_groups:
        group["lr"] = rate
    if settings.bfloat16 and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    elastic.at_step(state.done)
    optimizer.zero_grad(set_to_none=True)
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16),
    ):
        torch.manual_seed((seed << 32) + state.done)
        value = _sandwich(elastic, inputs, targets, candidates, lesson)
    if not math.isfinite(value):
        raise DivergedError(
            f"the loss became {value} at step {state.done} of the elastic training; "
            f"lower its learning rate ({settings.learning_rate}) or check the data"
        )
    torch.nn.utils.clip_grad_norm_(elastic.parameters(), settings.clip)
    optimizer.step()
    if state.average is not None:
        state.average.update()
    state.advance()
    return value


def _judge(state: TrainingState, score: Callable[[], float], spent: float) -> None:
    """Score the weights that the training would end with."""
    state.elastic.at_step(None)
    state.elastic.eval()
    with nullcontext() if state.average is None else state.average.applied():
        state.schedule.judge(score(), state.done, spent)
    state.elastic.train()


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
    candidates: Sequence[Candidate],
    lesson: _Lesson,
) -> float:
    largest, *others = candidates
    elastic.configure(largest)
    outputs = elastic(inputs).float()
    total = lesson.loss(outputs, targets)
    if lesson.teacher is not None:
        with torch.no_grad():
            guide = lesson.teacher(inputs).float()
        total = 0.5 * total + 0.5 * lesson.distillation(outputs, guide)
    total.backward()  # type: ignore[no-untyped-call]
    answers = outputs.detach()
    elastic.update_norms(False)
    for candidate in others:
        elastic.configure(candidate)
        guided = lesson.distillation(elastic(inputs).float(), answers)
        guided.backward()  # type: ignore[no-untyped-call]
    elastic.update_norms(True)
    return float(total.detach())
