"""Losses of every kind of distillation at their known values."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from autocompress.compression.distillation import registry
from autocompress.compression.distillation.attention import (
    WEIGHT,
    AttentionTransfer,
    attention_loss,
    attention_map,
)
from autocompress.compression.distillation.base import Answers, Distillation, Setting
from autocompress.compression.distillation.decoupled import Decoupled, decoupled_losses
from autocompress.compression.distillation.feature import FeatureRegression, regression_loss
from autocompress.compression.distillation.features import (
    Adapter,
    channels_second,
    pooled,
    same_places,
)
from autocompress.compression.distillation.itself import HINT, SelfDistillation, hint_loss
from autocompress.compression.distillation.mutual import Mutual
from autocompress.compression.distillation.registry import find_distillation
from autocompress.compression.distillation.relation import (
    ANGLE,
    DISTANCE,
    Relation,
    angle_loss,
    distance_loss,
)
from autocompress.compression.distillation.response import Response
from autocompress.compression.distillation.terms import output_loss, response_loss
from autocompress.core import candidate
from autocompress.core.candidate import DISTILLATION_ENTRY_POINTS, Recipe
from autocompress.errors import RequestError


def _logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _setting(**recipe: Any) -> Setting:
    return Setting(Recipe(**recipe), F.cross_entropy, True)


# -- outputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_zero_exactly_at_equality(temperature: float) -> None:
    logits = _logits(6, 10)
    assert float(response_loss(logits, logits, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(response_loss(logits + 3, logits, temperature)) == pytest.approx(0, abs=1e-6)
    assert float(response_loss(_logits(6, 10, seed=1), logits, temperature)) > 0.01


def test_response_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(response_loss(student, teacher, 1.0)) == pytest.approx(expected)
    halved = response_loss(student * 2, teacher * 2, 2.0)
    assert float(halved) == pytest.approx(4 * expected)


def test_the_mean_over_the_batch() -> None:
    student, teacher = _logits(8, 5), _logits(8, 5, seed=1)
    rows = [float(response_loss(student[i : i + 1], teacher[i : i + 1], 2.0)) for i in range(8)]
    assert float(response_loss(student, teacher, 2.0)) == pytest.approx(sum(rows) / 8, rel=1e-5)


def test_classes_of_every_pixel_are_the_second_dimension() -> None:
    student, teacher = _logits(2, 4, 3, 5), _logits(2, 4, 3, 5, seed=1)
    labels = torch.arange(30).reshape(2, 3, 5) % 4
    flat = [t.permute(0, 2, 3, 1).reshape(-1, 4) for t in (student, teacher)]
    assert float(response_loss(student, teacher, 2.0)) == pytest.approx(
        float(response_loss(flat[0], flat[1], 2.0)), rel=1e-5
    )
    assert [float(x) for x in decoupled_losses(student, teacher, labels, 2.0)] == pytest.approx(
        [float(x) for x in decoupled_losses(flat[0], flat[1], labels.flatten(), 2.0)], rel=1e-5
    )


def test_gradients_go_to_the_student_and_vanish_at_equality() -> None:
    student, teacher = _logits(4, 6).requires_grad_(), _logits(4, 6)
    response_loss(student, teacher, 3.0).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6


def test_outputs_that_are_no_logits_are_compared_as_numbers() -> None:
    student, teacher = _logits(4, 6), _logits(4, 6, seed=1)
    found = output_loss(student, teacher, 2.0, classification=True)
    assert torch.equal(found, response_loss(student, teacher, 2.0))
    found = output_loss(student, teacher, 2.0, classification=False)
    assert torch.equal(found, F.mse_loss(student, teacher))
    decoupled = Decoupled(Setting(Recipe(), F.mse_loss, False))
    assert torch.equal(decoupled.output_term(student, teacher, teacher), found)


def test_decoupled_by_hand() -> None:
    """Probabilities .5 .25 .25 and .25 .5 .25 of three classes, the first being right."""
    student = torch.tensor([[0.25, 0.5, 0.25]]).log()
    teacher = torch.tensor([[0.5, 0.25, 0.25]]).log()
    target, others = decoupled_losses(student, teacher, torch.tensor([0]), 1.0)
    assert float(target) == pytest.approx(
        0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), rel=1e-5
    )
    expected = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    assert float(others) == pytest.approx(expected, rel=1e-5)
    term = Decoupled(_setting(temperature=1.0)).output_term(student, teacher, torch.tensor([0]))
    assert float(term) == pytest.approx(float(target) + 8 * expected, rel=1e-5)


def test_decoupled_leaves_out_what_has_no_label() -> None:
    student, teacher = _logits(6, 5).requires_grad_(), _logits(6, 5, seed=1)
    labels = torch.tensor([0, -100, 3, 4, -100, 1])
    counted = labels >= 0
    found = decoupled_losses(student, teacher, labels, 2.0)
    expected = decoupled_losses(student[counted], teacher[counted], labels[counted], 2.0)
    assert [x.item() for x in found] == [x.item() for x in expected]
    none = sum(decoupled_losses(student, teacher, torch.full((6,), -100), 2.0))
    assert isinstance(none, torch.Tensor)
    assert none.item() == 0.0
    none.backward()  # type: ignore[no-untyped-call]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 6), st.floats(0.5, 5))
def test_decoupled_parts_make_the_response(seed: int, classes: int, temperature: float) -> None:
    """KL = target's + (1 - p of the target) x others', of each prediction (equation 5)."""
    student, teacher = _logits(1, classes, seed=seed), _logits(1, classes, seed=seed + 1)
    target, others = decoupled_losses(student, teacher, torch.tensor([1]), temperature)
    missing = 1 - float(F.softmax(teacher / temperature, 1)[0, 1])
    assert float(target) + missing * float(others) == pytest.approx(
        float(response_loss(student, teacher, temperature)), rel=1e-3, abs=1e-5
    )


# -- features --------------------------------------------------------------------------------------


def test_regression_by_hand() -> None:
    teacher = torch.tensor([[[3.0, 4.0]]])
    student = torch.tensor([[[3.0, 0.0]]])
    assert float(regression_loss(student, teacher)) == pytest.approx(16 / (2 * 25))
    assert float(regression_loss(10 * student, 10 * teacher)) == pytest.approx(16 / 50)
    assert float(regression_loss(teacher, teacher)) == 0
    assert math.isfinite(float(regression_loss(student, 0 * teacher)))


def test_attention_by_hand() -> None:
    """Channels are squared and added; what counts is where, not how much."""
    student = torch.tensor([[[1.0, 0.0]], [[2.0, 2.0]]]).reshape(1, 2, 1, 2)
    assert attention_map(student).tolist() == [pytest.approx([5 / 41**0.5, 4 / 41**0.5])]
    teacher = torch.tensor([[[0.0, 3.0]]]).reshape(1, 1, 1, 2)
    expected = ((5 / 41**0.5) ** 2 + (4 / 41**0.5 - 1) ** 2) / 2
    assert float(attention_loss(student, teacher)) == pytest.approx(expected)
    assert float(attention_loss(7 * student, teacher)) == pytest.approx(expected)
    kind = AttentionTransfer(_setting())
    empty = torch.zeros(1, 2)
    answers = [Answers(empty, (x, x)) for x in (student, teacher)]
    assert float(kind.feature_term(*answers)) == pytest.approx(2 * WEIGHT * expected)


def test_distances_by_hand() -> None:
    """Sides 3, 4, 5 against three equal ones: relative 3/4, 1, 5/4 against 1."""
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    teacher = torch.eye(3)
    expected = (0.5 * 0.25**2 + 0 + 0.5 * 0.25**2) / 3
    assert float(distance_loss(student, teacher)) == pytest.approx(expected, rel=1e-4)
    assert float(distance_loss(5 * student, student)) == pytest.approx(0, abs=1e-6)


def test_angles_by_hand() -> None:
    """A right isosceles triangle has cosines 0 and 1/sqrt 2 twice; an equilateral one 1/2."""
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.eye(3)
    expected = (0.5 * 0.5**2 + 2 * 0.5 * (0.5**0.5 - 0.5) ** 2) / 3
    assert float(angle_loss(student, teacher)) == pytest.approx(expected, rel=1e-4)
    turned = student @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) * 3 + 1
    assert float(angle_loss(turned, student)) == pytest.approx(0, abs=1e-6)
    kind = Relation(_setting())
    answers = [Answers(x, embedding=x) for x in (student, teacher)]
    distance = float(distance_loss(student, teacher))
    assert float(kind.feature_term(*answers)) == pytest.approx(
        DISTANCE * distance + ANGLE * expected, rel=1e-4
    )


def test_relations_of_few_or_equal_examples_have_gradients() -> None:
    for count in (1, 2, 3):
        student = torch.ones(count, 4, requires_grad=True)
        total = distance_loss(student, _logits(count, 5)) + angle_loss(student, _logits(count, 5))
        total.backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        assert bool(torch.isfinite(student.grad).all())


def test_hints_by_hand() -> None:
    assert float(hint_loss(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.zeros(2, 2))) == 2.5


def test_an_adapter_starts_at_the_best_linear_map() -> None:
    source = _logits(8, 3, 5, 5)
    weight = _logits(4, 3, seed=1)
    target = torch.einsum("oc,bchw->bohw", weight, source) + 2
    adapter = Adapter(source, target)
    assert torch.allclose(adapter.weight, weight, atol=0.02)
    assert torch.allclose(adapter(source), target, atol=0.05)
    tokens = Adapter(source.flatten(2), target.flatten(2))
    assert torch.allclose(tokens(source.flatten(2)), target.flatten(2), atol=0.05)
    rows = Adapter(pooled(source), pooled(target))
    assert rows(pooled(source)).shape == (8, 4)


def test_adapters_of_dead_features_are_finite() -> None:
    adapter = Adapter(torch.zeros(4, 3, 2, 2), _logits(4, 5, 2, 2))
    assert bool(torch.isfinite(adapter(torch.zeros(4, 3, 2, 2))).all())


def test_adapters_only_where_channels_do_not_correspond() -> None:
    student = Answers(_logits(4, 3), (_logits(4, 6, 5, 5), _logits(4, 4, 5, 5)))
    teacher = Answers(_logits(4, 3), (_logits(4, 6, 5, 5), _logits(4, 8, 5, 5)))
    for aligned, count in ((True, 1), (False, 2)):
        kind = FeatureRegression(Setting(Recipe(), F.cross_entropy, True, aligned))
        kind.prepare(student, teacher)
        assert len(kind.own) == count


def test_features_are_brought_into_one_form() -> None:
    tokens = _logits(2, 7, 3)
    assert torch.equal(channels_second(tokens, True), tokens.transpose(1, 2))
    images = _logits(2, 3, 4, 8).bfloat16()
    assert channels_second(images, False).dtype == torch.float32
    small, large = same_places(_logits(2, 3, 4, 4), _logits(2, 5, 8, 2))
    assert (small.shape, large.shape) == ((2, 3, 4, 2), (2, 5, 4, 2))
    one, other = same_places(_logits(2, 3, 6), _logits(2, 3, 4))
    assert one.shape == other.shape == (2, 3, 4)
    constant, _ = same_places(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 4, 4))
    assert torch.equal(constant, torch.ones(1, 1, 4, 4))
    with pytest.raises(RequestError, match=r"shapes \(2, 3, 6\) and \(2, 3, 4, 4\)"):
        same_places(_logits(2, 3, 6), _logits(2, 3, 4, 4))


# -- whole losses ----------------------------------------------------------------------------------


def test_weights_of_answers_labels_and_features() -> None:
    targets = torch.tensor([0, 2, 1])
    student = Answers(_logits(3, 4), (_logits(3, 2, 5, 5),))
    teacher = Answers(_logits(3, 4, seed=1), (_logits(3, 2, 5, 5, seed=1),))
    task = F.cross_entropy(student.outputs, targets)
    answers = response_loss(student.outputs, teacher.outputs, 2.0)
    features = regression_loss(student.stages[0], teacher.stages[0])
    for weight, factor in ((0.25, 2.0), (0.0, 2.0), (1.0, 0.0)):
        recipe = {"distillation_weight": weight, "temperature": 2.0, "feature_weight": factor}
        for kind, add in (
            (Response(_setting(**recipe)), 0.0),
            (FeatureRegression(_setting(**recipe)), factor),
        ):
            kind.prepare(student, teacher)
            expected = (1 - weight) * task + weight * answers + add * features
            found = kind.loss(student, teacher, targets)
            assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_mutual_learning_is_both_ways() -> None:
    targets = torch.tensor([0, 2, 1])
    one, other = _logits(3, 4).requires_grad_(), _logits(3, 4, seed=1).requires_grad_()
    recipe = {"distillation_weight": 0.5, "temperature": 1.0}
    loss = Mutual(_setting(**recipe)).loss(Answers(one), Answers(other), targets)
    ways = [
        0.5 * F.cross_entropy(a, targets) + 0.5 * response_loss(a, b, 1.0)
        for a, b in ((one, other), (other, one))
    ]
    assert loss.item() == pytest.approx((ways[0] + ways[1]).item())
    loss.backward()  # type: ignore[no-untyped-call]
    alone = _logits(3, 4).requires_grad_()
    Response(_setting(**recipe)).loss(Answers(alone), Answers(other.detach()), targets).backward()  # type: ignore[no-untyped-call]
    assert one.grad is not None
    assert alone.grad is not None
    assert torch.allclose(one.grad, alone.grad)  # the other's answers are taken as given


def test_self_distillation_by_its_parts() -> None:
    targets = torch.tensor([0, 2, 1])
    student = Answers(_logits(3, 4), (_logits(3, 2, 4, 4), _logits(3, 6, 2, 2)))
    torch.manual_seed(0)
    kind = SelfDistillation(_setting(distillation_weight=0.3, temperature=2.0, feature_weight=2.0))
    kind.prepare(student, None)
    adapter, head = kind.own
    adapted = adapter(pooled(student.stages[0]))
    said, deepest = head(adapted), pooled(student.stages[1])
    expected = F.cross_entropy(student.outputs, targets) + 0.7 * F.cross_entropy(said, targets)
    expected = expected + 0.3 * response_loss(said, student.outputs, 2.0)
    expected = expected + 2.0 * HINT * hint_loss(adapted, deepest)
    assert kind.loss(student, None, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_self_distillation_needs_one_prediction_an_example() -> None:
    student = Answers(_logits(3, 4, 2, 2), (_logits(3, 2, 4, 4), _logits(3, 6, 2, 2)))
    with pytest.raises(RequestError, match=r"not \(3, 4, 2, 2\); use 'response'"):
        SelfDistillation(_setting()).prepare(student, None)


# -- names -----------------------------------------------------------------------------------------


def test_none_is_no_kind_and_unknown_ones_are_refused() -> None:
    assert find_distillation("none") is None
    assert find_distillation("attention") is AttentionTransfer
    with pytest.raises(RequestError, match="distillation is 'telepathy'; use 'none' or one of res"):
        find_distillation("telepathy")


def test_kinds_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "autocompress.compression.distillation.relation:"
    entries = [
        EntryPoint("theirs", path + "Relation", DISTILLATION_ENTRY_POINTS),
        EntryPoint("response", path + "Relation", DISTILLATION_ENTRY_POINTS),
        EntryPoint("wrong", path + "angle_loss", DISTILLATION_ENTRY_POINTS),
    ]

    def found(*, group: str) -> list[Any]:
        return entries if group == DISTILLATION_ENTRY_POINTS else []

    for module in (registry, candidate):
        monkeypatch.setattr(module, "entry_points", found)
    assert find_distillation("theirs") is Relation
    assert find_distillation("response") is Response
    assert Recipe(distillation="theirs").distillation == "theirs"
    with pytest.raises(RequestError, match="'wrong' is no Distillation"):
        find_distillation("wrong")
    with pytest.raises(RequestError, match=r"use one of response, .*none, response, theirs, wrong"):
        Recipe(distillation="telepathy")


def test_a_kind_without_a_comparison_says_so() -> None:
    class Half(Distillation):
        name, reference, reads = "half", "nobody", "embedding"

    answers = Answers(_logits(2, 3), embedding=_logits(2, 4))
    with pytest.raises(NotImplementedError, match="'half' reads features but compares none"):
        Half(_setting()).loss(answers, answers, torch.tensor([0, 1]))
    for kind in (Response, Relation, Mutual):
        with pytest.raises(ValueError, match="needs the"):
            kind(_setting()).loss(answers, None, torch.tensor([0, 1]))
