"""What a kind of distillation is."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import nn

from autocompress.compression.distillation.points import FeaturePoints
from autocompress.compression.distillation.terms import output_loss
from autocompress.core.candidate import Recipe

#: From ``(outputs, targets)`` of a batch to a scalar.
TaskLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: What a kind compares besides outputs: tensors at the ends of stages, or the embedding.
Reads: TypeAlias = Literal["outputs", "stages", "embedding"]

#: Who is learnt from: the fixed original, a copy of it that learns along, or nobody else.
Guide: TypeAlias = Literal["original", "peer", "itself"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network gave for a batch, in float32.

    Attributes:
        outputs: shape ``(batch, classes, ...)``, or any for tasks without classes.
        stages: features at the ends of stages, each ``(batch, channels, ...)``; only those that
            the kind reads.
        embedding: shape ``(batch, channels)``, or None where the kind does not read it.
    """

    outputs: torch.Tensor
    stages: tuple[torch.Tensor, ...] = ()
    embedding: torch.Tensor | None = None

    def detached(self) -> Answers:
        """The same values without gradients."""
        return Answers(
            self.outputs.detach(),
            tuple(x.detach() for x in self.stages),
            None if self.embedding is None else self.embedding.detach(),
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """What one training asks of a kind.

    Attributes:
        recipe: weights and temperature.
        loss: the task's own loss.
        classification: whether outputs are logits.
        aligned: see :class:`~autocompress.compression.distillation.points.FeaturePoints`.
    """

    recipe: Recipe
    loss: TaskLoss
    classification: bool
    aligned: bool = True


class Distillation(ABC):
    """One kind of distillation, for one training.

    The loss of a kind is, unless it overrides :meth:`loss`,

    ``(1 - distillation_weight) * task + distillation_weight * output_term
    + feature_weight * feature_term``.

    A kind must keep these promises:

    - :meth:`loss` is a finite scalar for any batch of at least two examples, whatever the numbers
      of channels and the resolutions of the two networks' features are;
    - its gradients reach the student and :attr:`own`, and those of a guide that is a "peer";
    - what it trains along (:attr:`own`) is made in :meth:`prepare`, from torch's global random
      numbers only, and is no part of the student;
    - where the guide is not "itself", its terms are smallest when both networks agree.

    Attributes:
        name: what a recipe calls it.
        reference: the paper it comes from.
        reads: what of the networks it needs besides outputs.
        guide: who is learnt from.
        own: modules trained along with the student and thrown away afterwards.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    reads: ClassVar[Reads] = "outputs"
    guide: ClassVar[Guide] = "original"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.own = nn.ModuleList()

    @classmethod
    def fits(cls, points: FeaturePoints) -> bool:
        """Whether a network with these points has what the kind reads."""
        if cls.reads == "embedding":
            return points.embedding is not None
        return cls.reads == "outputs" or bool(points.stages)

    @classmethod
    def wanted(cls, points: FeaturePoints) -> FeaturePoints:
        """The points whose tensors the kind is to be given."""
        return FeaturePoints(
            points.stages if cls.reads == "stages" else (),
            points.embedding if cls.reads == "embedding" else None,
            points.output_rank,
            points.aligned,
        )

    @classmethod
    def asks(cls, recipe: Recipe) -> bool:
        """Whether any of its terms has a weight in ``recipe``."""
        features = cls.reads != "outputs" and recipe.feature_weight > 0
        return recipe.distillation_weight > 0 or features

    def prepare(self, student: Answers, teacher: Answers | None) -> None:
        """Make what is trained along, from both networks' answers to one batch."""
        return

    def loss(
        self, student: Answers, teacher: Answers | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """The whole loss of a batch, the task's included; a scalar.

        Args:
            student: with gradients.
            teacher: the guide's; None where the kind needs none.
            targets: as the task's loss takes them.
        """
        if teacher is None:
            raise ValueError(f"distillation {self.name!r} needs the answers of a teacher")
        recipe = self.setting.recipe
        weight = recipe.distillation_weight
        total = self.setting.loss(student.outputs, targets)
        if weight > 0:
            term = self.output_term(student.outputs, teacher.outputs, targets)
            total = (1 - weight) * total + weight * term
        if self.reads != "outputs" and recipe.feature_weight > 0:
            total = total + recipe.feature_weight * self.feature_term(student, teacher)
        return total

    def output_term(
        self, student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """How far the student's outputs are from the guide's; a scalar."""
        return output_loss(
            student, teacher, self.setting.recipe.temperature,
            classification=self.setting.classification,
        )  # fmt: skip

    def feature_term(self, student: Answers, teacher: Answers) -> torch.Tensor:
        """How far the student's features are from the guide's, times the paper's own weight."""
        raise NotImplementedError(f"distillation {self.name!r} reads features but compares none")
