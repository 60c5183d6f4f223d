# ruff: noqa: S101 - these are tests, shipped to whoever writes a kind of distillation
"""The contract of :class:`~autocompress.compression.distillation.base.Distillation`.

Example::

    class TestMine(DistillationContract):
        @pytest.fixture
        def kind(self):
            return Mine
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from autocompress.compression.distillation.base import Answers, Distillation, Setting
from autocompress.compression.distillation.lesson import Lesson
from autocompress.compression.distillation.points import FeaturePoints, find_points, match_points
from autocompress.core.candidate import Candidate, LayerPolicy, Recipe
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.testing.networks import captured

#: Both kinds of terms have a weight.
_RECIPE = Recipe(distillation_weight=0.5, temperature=2.0, feature_weight=1.0)
_BATCH = 6


class DistillationContract:
    """Inherit it, name the class ``Test…``, give the fixture :meth:`kind`."""

    @pytest.fixture
    def kind(self) -> type[Distillation]:
        """The class under test."""
        raise NotImplementedError("give your class a fixture `kind`")

    @pytest.fixture(autouse=True)
    def _registered(self, kind: type[Distillation], monkeypatch: pytest.MonkeyPatch) -> None:
        """Lessons find it, whether its package's entry point is installed or not."""
        module = "autocompress.compression.distillation.lesson.find_distillation"
        monkeypatch.setattr(module, lambda name: kind)

    def test_it_says_what_it_is(self, kind: type[Distillation]) -> None:
        """Recipes ask for it by name; reports cite its paper."""
        assert issubclass(kind, Distillation)
        assert kind.name.isidentifier()
        assert kind.name != "none"
        assert kind.reference
        assert kind.reads in ("outputs", "stages", "embedding")
        assert kind.guide in ("original", "peer", "itself")

    def test_it_is_offered_where_it_fits(self, kind: type[Distillation]) -> None:
        """A convolutional classifier has all that a kind can read."""
        assert kind.fits(find_points(captured(_Network)))
        assert kind.fits(FeaturePoints()) == (kind.reads == "outputs")

    def test_one_finite_loss_for_channels_and_places_that_differ(
        self, kind: type[Distillation]
    ) -> None:
        """Students are narrower, and may see less."""
        student, teacher = _answers(4, 5, seed=0), _answers(6, 7, seed=1)
        given = _prepared(kind, student, teacher)
        loss = given.loss(student, _guide(kind, teacher), _targets())
        assert loss.shape == ()
        assert bool(torch.isfinite(loss))

    def test_gradients_reach_the_student(self, kind: type[Distillation]) -> None:
        """And what is trained along; whatever is read has a part in it."""
        student, teacher = _answers(4, 4, seed=0), _answers(6, 4, seed=1)
        given = _prepared(kind, student, teacher)
        given.loss(student, _guide(kind, teacher), _targets()).backward()  # type: ignore[no-untyped-call]
        read: list[torch.Tensor | None] = [student.outputs]
        if kind.reads == "stages":
            first, last = student.stages[0], student.stages[-1]
            read += [first] if kind.guide == "itself" else [first, last]
        if kind.reads == "embedding":
            read.append(student.embedding)
        for x in (*read, *given.own.parameters()):
            assert x is not None
            assert x.grad is not None
            assert bool(torch.isfinite(x.grad).all())
            assert float(x.grad.abs().max()) > 0

    def test_agreement_is_best(self, kind: type[Distillation]) -> None:
        """A network that gives all that its guide gives has nothing to learn from it."""
        if kind.guide == "itself":
            pytest.skip("its guide is the network itself")
        student, other = _answers(4, 4, seed=0), _answers(4, 4, seed=1)
        given = _prepared(kind, student, student.detached(), labels=False)

        def loss(teacher: Answers) -> float:
            return float(given.loss(student, teacher, _targets()).detach())

        assert loss(student.detached()) == pytest.approx(0, abs=1e-4)
        assert loss(other.detached()) > loss(student.detached()) + 1e-4

    def test_without_weights_there_is_only_the_task(self, kind: type[Distillation]) -> None:
        """A search may turn everything off."""
        recipe = replace(_RECIPE, distillation_weight=0.0, feature_weight=0.0)
        assert not kind.asks(recipe)
        assert kind.asks(replace(recipe, distillation_weight=0.5))
        assert kind.asks(replace(recipe, feature_weight=0.5)) == (kind.reads != "outputs")

    def test_a_lesson_leaves_both_networks_as_they_were(self, kind: type[Distillation]) -> None:
        """Nothing is attached; only the student learns, and what the lesson itself holds."""
        student, teacher, points = _networks()
        modules = [name for name, _ in student.named_modules()]
        states = [copy.deepcopy(m.state_dict()) for m in (student, teacher)]
        lesson = _lesson(kind, student, teacher, points)
        x = _images()
        lesson.prepare(x)
        for network, state in zip((student, teacher), states, strict=True):
            found = network.state_dict()
            assert found.keys() == state.keys()
            assert all(torch.equal(found[name], state[name]) for name in state)
            assert not network.training
        known = {id(p) for p in (*student.parameters(), *teacher.parameters())}
        assert not known & {id(p) for p in lesson.own}
        lesson.loss(lesson.ask(x), _targets()).backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None for p in teacher.parameters())
        assert any(p.grad is not None for p in student.parameters())
        assert [name for name, _ in student.named_modules()] == modules
        assert not any(m._forward_hooks for n in (student, teacher) for m in n.modules())

    def test_a_lesson_prepares_it(
        self, kind: type[Distillation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once, whatever it reads, with answers of both networks where there is another."""
        given: list[tuple[Answers, Answers | None]] = []

        def prepare(_: Distillation, student: Answers, teacher: Answers | None) -> None:
            given.append((student, teacher))

        monkeypatch.setattr(kind, "prepare", prepare)
        _lesson(kind, *_networks()).prepare(_images())
        ((student, teacher),) = given
        assert not student.outputs.requires_grad
        assert (teacher is None) == (kind.guide == "itself")

    def test_the_same_random_numbers_give_the_same_loss(self, kind: type[Distillation]) -> None:
        """Trials are repeatable."""
        found = []
        for _ in range(2):
            torch.manual_seed(3)
            student, teacher, points = _networks()
            lesson = _lesson(kind, student, teacher, points)
            lesson.prepare(_images())
            found.append(float(lesson.loss(lesson.ask(_images()), _targets()).detach()))
        assert found[0] == found[1]

    def test_it_learns(self, kind: type[Distillation]) -> None:
        """A narrower network comes closer to what the kind asks for."""
        torch.manual_seed(0)
        student, teacher, points = _networks()
        lesson = _lesson(kind, student, teacher, points)
        x = _images()
        targets = teacher(x).argmax(1)  # labels that the teacher does not contradict
        lesson.prepare(x)
        optimizer = torch.optim.Adam([*student.parameters(), *lesson.own], lr=1e-2)
        losses = []
        for _ in range(20):
            loss = lesson.loss(lesson.ask(x), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        assert min(losses) < 0.9 * losses[0]

    def test_half_precision_outside_changes_no_type_inside(self, kind: type[Distillation]) -> None:
        """Networks may compute in bfloat16; losses are float32."""
        student, teacher, points = _networks()
        lesson = _lesson(kind, student, teacher, points)
        lesson.prepare(_images())
        with torch.autocast("cpu", torch.bfloat16):
            answers = lesson.ask(_images())
        loss = lesson.loss(answers, _targets())
        assert loss.dtype == torch.float32
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in student.parameters())


class _Network(nn.Module):
    """Two resolutions, then a classifier over the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.second(F.relu(self.norm(self.first(x)))))
        out: torch.Tensor = self.last(y.mean((2, 3)))
        return out


def _networks() -> tuple[fx.GraphModule, fx.GraphModule, FeaturePoints]:
    """A student of half the width, the original, and their points."""
    graph = captured(_Network)
    elastic = ElasticModel(graph).eval()
    widths = {name: LayerPolicy(width=graph.groups[name].channels // 2) for name in graph.groups}
    narrow = Candidate(layers={n: p for n, p in widths.items() if graph.groups[n].rigid is None})
    student, teacher = realise(elastic, narrow), realise(elastic, Candidate())
    return student, teacher, match_points(find_points(graph), graph, narrow, student)


def _lesson(
    kind: type[Distillation], student: nn.Module, teacher: nn.Module, points: FeaturePoints
) -> Lesson:
    return Lesson(
        student, _RECIPE, loss=F.cross_entropy, classification=True, teacher=teacher, points=points
    )


def _images() -> torch.Tensor:
    return torch.randn(_BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def _targets() -> torch.Tensor:
    return torch.arange(_BATCH) % 5


def _answers(channels: int, places: int, *, seed: int) -> Answers:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    stages = (
        drawn(_BATCH, channels, places, places),
        drawn(_BATCH, 2 * channels, places - 2, places - 2),
    )
    return Answers(drawn(_BATCH, 5), stages, drawn(_BATCH, 2 * channels))


def _guide(kind: type[Distillation], teacher: Answers) -> Answers | None:
    if kind.guide == "itself":
        return None
    return teacher if kind.guide == "peer" else teacher.detached()


def _prepared(
    kind: type[Distillation], student: Answers, teacher: Answers, *, labels: bool = True
) -> Distillation:
    task = F.cross_entropy if labels else lambda outputs, targets: outputs.sum() * 0.0
    given = kind(Setting(_RECIPE, task, True))
    given.prepare(student.detached(), None if kind.guide == "itself" else teacher.detached())
    return given
