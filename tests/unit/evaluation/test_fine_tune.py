"""Fine-tuning, on real digits: it learns, repeats itself, holds zeros and stops in time."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from functools import cache
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils.data import DataLoader, TensorDataset

from autocompress.compression.distillation.features import Adapter
from autocompress.compression.distillation.lesson import Lesson
from autocompress.compression.distillation.points import FeaturePoints, find_points, match_points
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import DISTILLATIONS, Candidate, LayerPolicy, Recipe
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import DataError, DivergedError
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.fine_tune import FineTuned, fine_tune, zero_masks
from autocompress.evaluation.splits import wrap
from autocompress.evaluation.task import Task
from tests.unit.networks import EVERYTHING, ResNet

ALONE = Recipe(distillation="none", learning_rate=3e-3)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data.load("digits")


def _model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(32, 10),
    )  # fmt: skip


def _tune(model: nn.Module, data: Data, steps: int = 30, **options: object) -> FineTuned:
    settings: dict[str, object] = {"recipe": ALONE, "seed": 0, **options}
    return fine_tune(model, data.train, Task(), steps=steps, **settings)  # type: ignore[arg-type]


def test_it_learns(data: Data) -> None:
    model = _model()
    before = evaluate_model(model, data.val, Task())
    losses: list[float] = []
    done = _tune(model, data, 60, progress=lambda step, loss: losses.append(loss))
    assert done.steps == 60
    assert len(losses) == 60
    assert done.loss == pytest.approx(sum(losses[-20:]) / 20)
    assert evaluate_model(model, data.val, Task()) > max(0.85, before)
    assert not model.training


def test_same_seed_same_weights_and_the_caller_s_random_numbers_are_left_alone(data: Data) -> None:
    states = []
    for seed in (3, 3, 4):
        model = _model()
        state = torch.random.get_rng_state()
        _tune(model, data, 5, seed=seed)
        assert torch.equal(state, torch.random.get_rng_state())
        states.append(model.state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])


def test_no_steps_change_nothing(data: Data) -> None:
    model = _model().train()
    before = copy.deepcopy(model.state_dict())
    done = _tune(model, data, 0)
    assert done.steps == 0
    assert math.isnan(done.loss)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not model.training


def test_zeros_stay_zero(data: Data) -> None:
    model = _model()
    first = model[1]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight[:, ::2] = 0
    masks = zero_masks(model, ["1"])
    assert set(masks) == {"1.weight"}
    before = first.weight.detach().clone()
    _tune(model, data, 10, masks=masks)
    assert not first.weight[:, ::2].any()
    assert not torch.equal(first.weight[:, 1::2], before[:, 1::2])
    other = _model()
    unheld = other[1]
    assert isinstance(unheld, nn.Linear)
    with torch.no_grad():
        unheld.weight[:, ::2] = 0
    _tune(other, data, 10)
    assert unheld.weight[:, ::2].any()


def test_a_teacher_guides(data: Data) -> None:
    """Trained on the teacher alone, the student copies a teacher that is always wrong."""

    class Shifted(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.model(x)
            return out.roll(1, dims=1)

    teacher = _model()
    _tune(teacher, data, 60)
    student = _model(1)
    _tune(
        student, data, 80, teacher=Shifted(teacher).eval(),
        recipe=Recipe(distillation_weight=1.0, learning_rate=3e-3),
    )  # fmt: skip
    x, y = next(iter(data.val.batches(200)))
    with torch.no_grad():
        answers = student(x).argmax(1)
    assert float((answers == (y + 1) % 10).double().mean()) > 0.7
    assert float((answers == y).double().mean()) < 0.2


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_without_weight_the_teacher_is_not_asked(data: Data, weight: float) -> None:
    asked: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return torch.zeros(len(x), 10)

    recipe = Recipe(distillation_weight=weight)
    _tune(_model(), data, 2, teacher=Counting(), recipe=recipe)
    assert len(asked) == (2 if weight else 0)


def test_a_deadline_ends_it(data: Data) -> None:
    left = iter([False, False, False, True])
    assert _tune(_model(), data, 100, deadline=lambda: next(left)).steps == 3


def test_more_steps_than_an_epoch_has(data: Data) -> None:
    assert _tune(_model(), data, 3, batch_size=1000).steps == 3


def test_a_loss_that_is_not_finite(data: Data) -> None:
    task = Task(loss=lambda outputs, targets: outputs.sum() * float("inf") * 0)
    with pytest.raises(DivergedError, match=r"became nan at step 0 of 4.*learning rate \(0.003\)"):
        fine_tune(_model(), data.train, task, recipe=ALONE, steps=4, seed=0)


def _loader(examples: int, batch: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    x = torch.randn(examples, 1, 8, 8)
    return DataLoader(TensorDataset(x, torch.arange(examples) % 10), batch_size=batch)


def test_batches_of_one_example_are_left_out_where_batch_norm_would_fail() -> None:
    done = fine_tune(_model(), wrap(_loader(9, 4), "train"), Task(), recipe=ALONE, steps=5, seed=0)
    assert done.steps == 5


def test_nothing_to_train_on_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(DataError, match="train yields no batch of two or more examples"):
        fine_tune(_model(), wrap(_loader(3, 1), "train"), Task(), recipe=ALONE, steps=5, seed=0)


def test_single_examples_are_fine_without_batch_norm() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    done = fine_tune(model, wrap(_loader(3, 1), "train"), Task(), recipe=ALONE, steps=5, seed=0)
    assert done.steps == 5


def test_the_rate_falls_with_the_time_that_is_spent(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training whose time ends before its steps still ends at a rate of nearly nothing."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *given: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    shares = iter([i / 20 for i in range(40)])
    assert _tune(_model(), data, 1000, spent=lambda: next(shares)).steps == 20
    assert rates[-1] < 0.05 * max(rates)


@cache
def _trained_space() -> ElasticSpace:
    torch.manual_seed(0)
    model = ResNet(channels=1, widths=(8, 16))
    digits = Data.load("digits")
    fine_tune(model, digits.train, Task(), recipe=ALONE, steps=80, seed=0)
    return ElasticSpace.from_model(
        model.eval(), (digits.example()[0],), capabilities=EVERYTHING,
        techniques=make_techniques(["pruning", "quantization"]),
    )  # fmt: skip


def _narrow() -> Candidate:
    """Half the channels, one block less."""
    found = _trained_space().graph
    layers = {
        name: LayerPolicy(width=group.channels // 2)
        for group in found.groups.values()
        if group.rigid is None
        for name in group.producers
    }
    return Candidate(architecture={"depth:layer1": 2}, layers=layers)


def _students() -> tuple[fx.GraphModule, fx.GraphModule, FeaturePoints]:
    found = _trained_space()
    elastic = ElasticModel(found.graph, found.techniques).eval()
    student, teacher = realise(elastic, _narrow()), realise(elastic, Candidate())
    reestimate_batch_norm(
        student, (x for x, _ in Data.load("digits").train.batches(128, limit=512))
    )
    points = match_points(find_points(found.graph), found.graph, _narrow(), student)
    return student, teacher, points


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_every_kind_trains_a_pruned_network(data: Data, kind: str) -> None:
    student, teacher, points = _students()
    before = evaluate_model(student, data.val, Task())
    names = set(student.state_dict())
    held = copy.deepcopy(teacher.state_dict())
    recipe = Recipe(distillation=kind, learning_rate=3e-3, feature_weight=0.1)
    done = _tune(student, data, 40, recipe=recipe, teacher=teacher, points=points)
    assert done.steps == 40
    assert evaluate_model(student, data.val, Task()) > max(0.5, before + 0.2)
    assert set(student.state_dict()) == names
    assert all(torch.equal(held[n], t) for n, t in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize("kind", ["feature", "mutual", "self"])
def test_what_is_trained_along_is_the_same_for_the_same_seed(data: Data, kind: str) -> None:
    states = []
    for seed in (3, 3, 4):
        student, teacher, points = _students()
        outside = torch.random.get_rng_state()
        _tune(
            student, data, 4, recipe=Recipe(distillation=kind), teacher=teacher, points=points,
            seed=seed,
        )  # fmt: skip
        assert torch.equal(outside, torch.random.get_rng_state())
        states.append(student.state_dict())
    assert all(torch.equal(states[0][n], t) for n, t in states[1].items())
    assert any(not torch.equal(states[0][n], t) for n, t in states[2].items())


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_every_kind_trains_in_bfloat16(data: Data, kind: str) -> None:
    student, teacher, points = _students()
    recipe = Recipe(distillation=kind)
    done = _tune(student, data, 3, recipe=recipe, teacher=teacher, points=points, bfloat16=True)
    assert math.isfinite(done.loss)
    assert all(p.dtype == torch.float32 for p in student.parameters())


def test_nothing_of_a_training_is_left_in_memory(data: Data) -> None:
    """Neither the peer nor the adapters outlive it, nor does anything refer to the student."""
    for kind in ("feature", "mutual", "self"):
        student, teacher, points = _students()
        recipe = Recipe(distillation=kind)
        _tune(student, data, 2, recipe=recipe, teacher=teacher, points=points)
        assert not any(m._forward_hooks for n in (student, teacher) for m in n.modules())
        gone = weakref.ref(student)
        del student
        gc.collect()
        assert gone() is None
        assert not [o for o in gc.get_objects() if type(o) in (Adapter, Lesson)]


def test_weights_that_diverge_while_features_are_compared(data: Data) -> None:
    student, teacher, points = _students()
    recipe = Recipe(distillation="attention", feature_weight=1e38)
    with pytest.raises(DivergedError, match=r"became (inf|nan) at step"):
        _tune(student, data, 20, recipe=recipe, teacher=teacher, points=points)
