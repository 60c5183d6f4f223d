"""One training's loss: a student, perhaps a teacher, and the kind of distillation between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Literal

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocompress.compression.distillation.base import Answers, Distillation, Setting, TaskLoss
from autocompress.compression.distillation.features import channels_second, pooled
from autocompress.compression.distillation.points import FeaturePoints, Point
from autocompress.compression.distillation.reading import FeatureReader
from autocompress.compression.distillation.registry import find_distillation
from autocompress.core.candidate import Recipe
from autocompress.errors import RequestError


class Lesson:
    """Computes the loss of a recipe's kind of distillation, batch by batch.

    Where the recipe asks for nothing (kind "none", no weights, or no teacher for a kind that needs
    one) it is the task's loss alone. Neither the student nor the teacher is changed; what is
    trained along is in :attr:`own`, and goes when the lesson goes.

    Args:
        student: the network that is trained; a captured or realised graph for kinds that read
            features.
        recipe: kind, weights, temperature.
        loss: the task's.
        classification: whether outputs are logits.
        teacher: the original, in evaluation mode; a graph for kinds that read its features.
        points: where features are read, from
            :func:`autocompress.compression.distillation.points.match_points`.

    Raises:
        RequestError: the kind is unknown, or reads features that these networks do not have.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: Recipe,
        *,
        loss: TaskLoss,
        classification: bool,
        teacher: nn.Module | None = None,
        points: FeaturePoints | None = None,
    ) -> None:
        kind = find_distillation(recipe.distillation)
        self._loss = loss
        self._kind: Distillation | None = None
        self._guide: _Network | None = None
        self._student = _Network(student)
        self._peer: nn.Module | None = None
        if kind is None or not kind.asks(recipe) or (teacher is None and kind.guide != "itself"):
            return
        points = points or FeaturePoints()
        if not kind.fits(points):
            raise RequestError(
                f"distillation {kind.name!r} compares features ({kind.reads}), and these networks "
                "have no points where it could; use 'response'"
            )
        wanted = kind.wanted(points)
        self._kind = kind(Setting(recipe, loss, classification, wanted.aligned))
        self._student = _Network(student, wanted, "student")
        if kind.guide == "peer":
            self._peer = teacher = copy.deepcopy(teacher)
        if teacher is not None and kind.guide != "itself":
            self._guide = _Network(teacher, wanted, "teacher")
        if self._peer is not None:
            self._peer.requires_grad_(True).train()

    def prepare(self, inputs: torch.Tensor) -> None:
        """Make what is trained along, from one batch; both networks keep their state.

        The student's batch norms take the batch's statistics, as they will in training: those it
        has are of other widths and ranks. Uses torch's global random numbers.
        """
        if self._kind is None or type(self._kind).prepare is Distillation.prepare:
            return
        with torch.no_grad(), _norms_in_training(self._student.module, len(inputs)):
            student = self._student(inputs)
        with torch.no_grad():
            teacher = None if self._guide is None else self._guide(inputs)
        self._kind.prepare(student, teacher)

    @property
    def own(self) -> list[nn.Parameter]:
        """What is trained along with the student and is no part of it."""
        kept = [] if self._kind is None else list(self._kind.own.parameters())
        return kept if self._peer is None else [*kept, *self._peer.parameters()]

    def ask(self, inputs: torch.Tensor) -> tuple[Answers, Answers | None]:
        """The student's answers to a batch, with gradients, and its guide's."""
        student = self._student(inputs)
        if self._guide is None:
            return student, None
        with torch.set_grad_enabled(self._peer is not None):
            return student, self._guide(inputs)

    def loss(self, answers: tuple[Answers, Answers | None], targets: torch.Tensor) -> torch.Tensor:
        """The loss to minimise, what is trained along included; a scalar."""
        student, guide = answers
        if self._kind is None:
            return self._loss(student.outputs, targets)
        return self._kind.loss(student, guide, targets)


@contextmanager
def _norms_in_training(module: nn.Module, examples: int) -> Iterator[None]:
    """All else in evaluation mode; modes and statistics are restored."""
    modes = [(m, m.training) for m in module.modules()]
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    held = [(buffer, buffer.clone()) for m in norms for buffer in m.buffers()]
    module.eval()
    for norm in norms if examples > 1 else ():
        norm.train()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
        with torch.no_grad():
            for buffer, value in held:
                buffer.copy_(value)


class _Network:
    """One of the two networks, and where it is read."""

    def __init__(
        self,
        module: nn.Module,
        points: FeaturePoints | None = None,
        role: Literal["student", "teacher"] = "student",
    ) -> None:
        self.module = module
        points = points or FeaturePoints()
        name: Callable[[Point], str] = attrgetter(role)
        self._stages = [(name(point), point) for point in points.stages]
        self._embedding = [(name(p), p) for p in (points.embedding,) if p is not None]
        names = {name for name, _ in (*self._stages, *self._embedding)}
        self._reader = self._reads(module, names, role) if names else None

    @staticmethod
    def _reads(module: nn.Module, names: set[str], role: str) -> FeatureReader:
        if not isinstance(module, fx.GraphModule):
            raise RequestError(
                f"the {role} is a {type(module).__name__}; its features can only be read in a "
                "captured graph: capture it with autocompress.graph.capture.trace"
            )
        missing = names - {node.name for node in module.graph.nodes}
        if missing:
            raise RequestError(f"the {role} has no node {min(missing)!r} to read features at")
        return FeatureReader(module, names)

    def __call__(self, inputs: torch.Tensor) -> Answers:
        if self._reader is None:
            outputs: torch.Tensor = self.module(inputs)
            return Answers(outputs.float())
        outputs, seen = self._reader.read(inputs)
        stages = tuple(channels_second(seen[n], p.channels_last) for n, p in self._stages)
        embeddings = [channels_second(seen[n], p.channels_last) for n, p in self._embedding]
        embedding = pooled(embeddings[0]) if embeddings else None
        return Answers(outputs.float(), stages, embedding)
