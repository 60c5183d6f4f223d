"""Training the shared weights makes candidates better, on real digits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.distillation.terms import response_loss
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate
from autocompress.elastic import training
from autocompress.elastic.corners import smallest
from autocompress.elastic.layers import ElasticNorm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.schedule import Schedule
from autocompress.elastic.space import ElasticSpace
from autocompress.elastic.training import ElasticTrained, ElasticTraining, train_elastic
from autocompress.errors import DataError, DivergedError
from autocompress.evaluation.data import Data
from tests.unit.networks import EVERYTHING, ResNet

Batch = tuple[torch.Tensor, torch.Tensor]
LOSS = nn.CrossEntropyLoss()


def _guide(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return response_loss(outputs, answers, 2.0)


@cache
def _data() -> Data:
    return Data.load("digits")


@cache
def _space() -> ElasticSpace:
    torch.manual_seed(0)
    return ElasticSpace.from_model(
        ResNet(channels=1, widths=(8, 16)), (_data().example()[0],),
        techniques=make_techniques(["pruning", "quantization"]), capabilities=EVERYTHING,
    )  # fmt: skip


def _elastic() -> ElasticModel:
    return ElasticModel(_space().graph, _space().techniques)


def _epochs(epoch: int) -> Iterator[Batch]:
    return _data().train.batches(32, shuffle=True, seed=epoch)


def _losses(elastic: ElasticModel, candidates: list[Candidate]) -> list[float]:
    """Each candidate's loss with the statistics of its own batch: training mode, no gradients."""
    x, y = next(iter(_data().val.batches(200)))
    elastic = copy.deepcopy(elastic).train()
    elastic.update_norms(False)
    with torch.no_grad():
        return [float(LOSS(elastic.configure(c)(x), y)) for c in candidates]


def test_random_candidates_get_better() -> None:
    elastic, space = _elastic(), _space()
    rng = np.random.default_rng(77)
    candidates = [smallest(space), *(space.decode(space.sample(rng)) for _ in range(5))]
    before = _losses(elastic, candidates)
    parameters = {n: p.detach().clone() for n, p in elastic.named_parameters()}
    done = train_elastic(
        elastic, space, _epochs, LOSS, _guide, steps=60, seed=0,
        settings=ElasticTraining(learning_rate=1e-2),
    )  # fmt: skip
    assert done == ElasticTrained(60, ended_early=False)
    after = _losses(elastic, candidates)
    assert all(b < a for a, b in zip(before, after, strict=True))
    assert sum(after) < 0.96 * sum(before)
    assert all(not torch.equal(parameters[n], p) for n, p in elastic.named_parameters())
    assert not elastic.training
    assert elastic.candidate == Candidate()


def test_same_seed_same_weights() -> None:
    states = []
    for seed in (1, 1, 2):
        elastic = _elastic()
        train_elastic(elastic, _space(), _epochs, LOSS, _guide, steps=2, seed=seed)
        states.append({n: t.clone() for n, t in elastic.state_dict().items()})
    first, second, third = states
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], third[n]) for n in first)


def test_running_statistics_are_the_largest_candidates() -> None:
    """Whoever asks for the full model next must not find the smallest one's statistics."""
    elastic, space = _elastic(), _space()
    for norm in elastic.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    alone = copy.deepcopy(elastic).train()
    batch = next(iter(_epochs(0)))
    alone.configure(space.decode(space.original))(batch[0])
    train_elastic(elastic, space, lambda _: [batch], LOSS, _guide, steps=1, seed=0)
    expected = dict(alone.named_buffers())
    for name, buffer in elastic.named_buffers():
        assert torch.allclose(buffer, expected[name]), name
    assert all(m.updates for m in elastic.modules() if isinstance(m, ElasticNorm))


def test_a_teacher_changes_the_largest_ones_loss() -> None:
    losses = []
    for teacher in (None, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))):
        seen: list[float] = []
        train_elastic(
            _elastic(), _space(), _epochs, LOSS, _guide, steps=1, seed=0, teacher=teacher,
            progress=lambda _, value, seen=seen: seen.append(value),  # type: ignore[misc]
        )  # fmt: skip
        losses.append(seen)
    assert losses[0] != losses[1]


def test_a_deadline_ends_it() -> None:
    left = iter([False, False, True])
    done = train_elastic(
        _elastic(), _space(), _epochs, LOSS, _guide, steps=100, seed=0,
        deadline=lambda: next(left),
    )  # fmt: skip
    assert done.steps == 2


class EverySecond:
    """A clock on which each look takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_time_sets_the_pace_and_counts_over_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rate falls to zero as the time runs out, and an interrupted training gets no more."""
    monkeypatch.setattr(training, "time", EverySecond())
    rates: list[float] = []
    before = Schedule.learning_rate

    def noted(self: Schedule, done: int, spent: float = 0.0) -> float:
        rates.append(before(self, done, spent))
        return rates[-1]

    monkeypatch.setattr(Schedule, "learning_rate", noted)
    path, steps = tmp_path / "state.safetensors", [0]

    def train(deadline: Callable[[], bool] = lambda: False) -> int:
        found = train_elastic(
            _elastic(), _space(), _epochs, LOSS, _guide, steps=1000, seed=0, seconds=200.0,
            deadline=deadline, checkpoint=path,
        )  # fmt: skip
        return found.steps

    def soon() -> bool:
        steps[0] += 1
        return steps[0] > 50

    assert train(soon) == 50
    assert 0.4e-3 < rates[-1] < 0.6e-3
    done = train()
    assert rates[50] == pytest.approx(rates[40], rel=0.05)  # from the checkpoint at 40 steps
    assert rates[-1] < 0.01e-3
    monkeypatch.setattr(training, "time", EverySecond())
    path.unlink()
    assert abs(train() - done) <= 5


def test_where_nothing_is_gained_it_ends_early() -> None:
    asked = []

    def score() -> float:
        asked.append(1)
        return 0.5

    found = train_elastic(
        _elastic(), _space(), _epochs, LOSS, _guide, steps=40, seed=0, score=score,
        settings=ElasticTraining(growing=0.1, checks=20, patience=3),
    )  # fmt: skip
    assert found == ElasticTrained(12, ended_early=True)
    assert len(asked) == 6


def test_several_epochs() -> None:
    asked: list[int] = []

    def short(epoch: int) -> list[Batch]:
        asked.append(epoch)
        return [next(iter(_epochs(epoch)))]

    assert train_elastic(_elastic(), _space(), short, LOSS, _guide, steps=3, seed=0).steps == 3
    assert asked[:3] == [0, 1, 2]


def test_a_loss_that_is_not_finite() -> None:
    def diverging(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.sum() * float("nan")

    with pytest.raises(DivergedError, match="became nan at step 0"):
        train_elastic(_elastic(), _space(), _epochs, diverging, _guide, steps=3, seed=0)


def test_no_data() -> None:
    with pytest.raises(DataError, match="no batch"):
        train_elastic(_elastic(), _space(), lambda _: [], LOSS, _guide, steps=3, seed=0)
