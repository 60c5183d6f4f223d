"""A candidate's accuracy at a fidelity: realise, train back, quantise, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import fx, nn

from autocompress.compression.distillation.base import Distillation
from autocompress.compression.distillation.points import FeaturePoints, find_points, match_points
from autocompress.compression.distillation.registry import find_distillation
from autocompress.compression.quantization import recalibrate, simulate_quantization
from autocompress.compression.repair.post_training import affordable, repair_quantized
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.files import replacing
from autocompress.core.trial import Evaluation
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import StorageError
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.fine_tune import fine_tune, zero_masks
from autocompress.evaluation.splits import Split
from autocompress.evaluation.task import Task
from autocompress.graph.capture import trace
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.model_graph import Layer
from autocompress.graph.ops import Op
from autocompress.graph.pickling import PlainGraph, from_plain, to_plain

#: Training examples that batch norm statistics are re-estimated from.
STATISTICS = 1024
#: Share of a fine-tune spent after quantisation, when a quantised candidate's structure changes.
QUANTIZED_SHARE = 0.4
#: Learning rate after quantisation, relative to the recipe's.
QUANTIZED_RATE = 0.3
#: Learning rate, relative to the recipe's, where only bit-widths of a trained model change: its
#: weights start at their optimum. They are quantised before the first step, and learn from the
#: original's answers alone. A trained ResNet-20 in 4 bits won back 3.0 points of 3.2 in 140 steps;
#: 2.3 when it was trained as if it had been pruned.
UNCHANGED_RATE = 0.5


@dataclass(frozen=True, slots=True)
class Effort:
    """What each fidelity costs.

    Attributes:
        short_steps: optimiser steps of a short fine-tune.
        final_steps: optimiser steps when a model is finalised.
        val_limit: validation examples looked at below the final fidelity; None takes all.
        learning_rate: peak learning rate of fine-tunes.
        batch_size: examples per step.
        bfloat16: train float models in bfloat16, where the processor is faster at it.
        final_seconds: no final fine-tune trains longer than this; None sets no limit. A limit in
            seconds makes results depend on the machine's speed.
    """

    short_steps: int = 0
    final_steps: int = 0
    val_limit: int | None = None
    learning_rate: float = 1e-3
    batch_size: int = 64
    bfloat16: bool = False
    final_seconds: float | None = None

    def steps(self, fidelity: Fidelity) -> int:
        """Optimiser steps of ``fidelity``."""
        return {Fidelity.SHORT: self.short_steps, Fidelity.FINAL: self.final_steps}.get(fidelity, 0)


@dataclass(frozen=True)
class PreparedModel:
    """A candidate ready to be evaluated or exported.

    Attributes:
        model: plain or fake-quantised graph, batch norm folded, in evaluation mode.
        ops: its operations; names equal the graph's nodes.
        train_steps: optimiser steps it took.
        distillation: what it learnt by instead of what its recipe names, or None.
    """

    model: fx.GraphModule
    ops: tuple[Op, ...]
    train_steps: int = 0
    distillation: str | None = None


class CandidateEvaluator:
    """Evaluates candidates from shared weights; see :class:`autocompress.core.trial.Evaluator`.

    Args:
        elastic: the shared weights; never changed.
        data: trained on ``train``, evaluated on ``val``, calibrated on ``calibration``.
        task: loss and metric.
        effort: what each fidelity costs.
        original: the candidate that leaves the model as it is; its batch norm statistics hold.
        trained: whether the shared weights came trained, rather than with a space of its own.
        teacher: the original model for distillation, in evaluation mode, or None. Kinds that
            compare features read them by node name: in it, when it is a graph realised from
            ``elastic``; otherwise in what it is captured as, for which adapters do not count on
            equal channels standing in one order.
        checkpoints: folder where finalised models are saved, or None.
        threads: torch threads; results depend on it in the last digits.
        statistics: training examples that batch norm statistics are re-estimated from.
    """

    def __init__(
        self,
        elastic: ElasticModel,
        data: Data,
        task: Task,
        *,
        effort: Effort,
        original: Candidate | None = None,
        trained: bool = True,
        teacher: nn.Module | None = None,
        checkpoints: Path | None = None,
        threads: int | None = None,
        statistics: int = STATISTICS,
    ) -> None:
        self.elastic = elastic
        self.data = data
        self.task = task
        self.effort = effort
        self.original = original or Candidate()
        self.trained = trained
        self.teacher = teacher
        self.checkpoints = checkpoints
        self.threads = threads
        self.statistics = statistics
        self._subset: Split | None = None

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        """Metric "accuracy" (the task's score on the validation split, larger is better).

        At :data:`Fidelity.FINAL` the model is also saved, when there is a folder for it. Where
        blocks were skipped so that the recipe's kind of distillation has nothing to compare any
        more, ``details["distillation"]`` says what guided the training instead.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        started = time.monotonic()
        final = fidelity == Fidelity.FINAL
        split = self.data.val if final else self.trial_split()
        steps = self.effort.steps(fidelity)
        seconds = self.effort.final_seconds if final else None
        # a short training can harm what was nearly lossless: the better of the two is kept
        untrained = None
        if final and steps:
            untrained = self.prepare(candidate, steps=0, seed=seed, repaired=True)
        if seconds is not None:
            seconds = max(0.0, seconds - (time.monotonic() - started))
        prepared = self.prepare(
            candidate, steps=steps, seed=seed, seconds=seconds, repaired=final and not steps
        )
        details = {} if prepared.distillation is None else {"distillation": prepared.distillation}
        value = evaluate_model(prepared.model, split, self.task)
        kept = "trained"
        if untrained is not None:
            before = evaluate_model(untrained.model, split, self.task)
            if self.task.score(before) > self.task.score(value) or not prepared.train_steps:
                kept, value = "untrained", before
                prepared = replace(untrained, train_steps=prepared.train_steps)
        if final and self.checkpoints is not None:
            save_model(prepared.model, checkpoint_path(self.checkpoints, candidate))
        return Evaluation(
            metrics={"accuracy": self.task.score(value)},
            seconds=time.monotonic() - started,
            train_steps=prepared.train_steps,
            details={"metric": value, "kept": kept, **details},
        )

    def prepare(
        self,
        candidate: Candidate,
        *,
        steps: int,
        seed: int,
        seconds: float | None = None,
        repaired: bool = False,
    ) -> PreparedModel:
        """The candidate with weights of its own.

        Args:
            candidate: which.
            steps: it is trained for so many.
            seed: of the training.
            seconds: it is trained for so long at the most.
            repaired: whether layers of few bits that are not trained are repaired from the
                calibration examples; that takes several times as long as rounding them.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        model = realise(self.elastic, candidate)
        ops = self.elastic.graph.operations(candidate)
        quantized = any(op.stores_rounded for op in ops)
        changed = self.changes_structure(candidate)
        later = round(steps * self._quantized_share(candidate)) if quantized else 0
        share = later / steps if steps else 0.0
        first = None if seconds is None else seconds * (1 - share)
        second = None if seconds is None else seconds * share
        done = self._train(model, candidate, steps - later, seed, first)
        if done or changed:
            reestimate_batch_norm(model, self.statistics_batches())
        fold_batch_norm(model)
        if quantized:
            plain, held = model, self.calibration_batches()
            model = simulate_quantization(plain, ops, held)
            more = self._train(model, candidate, later, seed + 1, second, quantized=True)
            if repaired and not more:
                repair_quantized(model, affordable(held, ops), reference=plain)
            if more or repaired:
                recalibrate(model, held)
            done += more
        instead = self._instead(candidate, model) if done else None
        return PreparedModel(model.eval(), ops, done, instead)

    def restore(self, candidate: Candidate) -> PreparedModel:
        """A finalised candidate, from the folder of checkpoints.

        Raises:
            StorageError: it was not saved, or the file does not fit.
        """
        if self.checkpoints is None:
            raise StorageError("this evaluator has no folder of checkpoints")
        prepared = self.prepare(candidate, steps=0, seed=0)
        path = checkpoint_path(self.checkpoints, candidate)
        try:
            prepared.model.load_state_dict(load_file(path))
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise StorageError(
                f"the checkpoint {path} cannot be used ({error}); delete it and resume the run"
            ) from error
        return prepared

    def calibration_batches(self) -> list[torch.Tensor]:
        """Inputs of the calibration split."""
        return [x for x, _ in self.data.calibration.batches(64)]

    def trial_split(self) -> Split:
        """The validation examples that trials are judged by: the same for all, spread by class."""
        limit = self.effort.val_limit
        if limit is None or len(self.data.val) <= limit:
            return self.data.val
        if self._subset is None or len(self._subset) != limit:
            self._subset = self.data.val.subset(limit, seed=0)
        return self._subset

    def statistics_batches(self) -> Iterator[torch.Tensor]:
        """Training inputs as the weights saw them, augmentation included.

        Statistics of images without it shift a network that was trained with it: re-estimating
        those of an unchanged ResNet-20 lost three points, and half a point with it.
        """
        batches = self.data.train.batches(128, shuffle=True, seed=0, limit=self.statistics)
        return (inputs for inputs, _ in batches)

    def changes_structure(self, candidate: Candidate) -> bool:
        """Whether it differs from the original in more than bit-widths.

        Then its batch norm statistics are re-estimated.
        """
        return candidate.architecture != self.original.architecture or any(
            p.width is not None or p.rank is not None or p.sparsity > 0
            for p in candidate.layers.values()
        )

    def _at_optimum(self, candidate: Candidate) -> bool:
        """Whether its weights are a trained model's, and only bit-widths change."""
        return self.trained and not self.changes_structure(candidate)

    def _quantized_share(self, candidate: Candidate) -> float:
        return 1.0 if self._at_optimum(candidate) else QUANTIZED_SHARE

    def _train(
        self,
        model: fx.GraphModule,
        candidate: Candidate,
        steps: int,
        seed: int,
        seconds: float | None,
        *,
        quantized: bool = False,
    ) -> int:
        if steps <= 0:
            return 0
        ready = self._at_optimum(candidate)
        rate = UNCHANGED_RATE if ready else QUANTIZED_RATE if quantized else 1.0
        ops = self.elastic.graph.operations(candidate)
        sparse = [op.layer for op in ops if op.layer is not None and op.sparsity > 0]
        instead = self._instead(candidate, model)
        recipe = replace(candidate.recipe, distillation=instead or candidate.recipe.distillation)
        kind = find_distillation(recipe.distillation)
        taught = kind is not None and (self.teacher is not None or kind.guide == "itself")
        weight = recipe.distillation_weight
        if ready and weight > 0 and kind is not None and kind.guide == "original":
            weight = 1.0
        recipe = replace(
            recipe,
            distillation=recipe.distillation if taught else "none",
            distillation_weight=weight,
            learning_rate=self.effort.learning_rate * rate,
        )
        teacher, points = self._guide(kind, candidate, model)
        return fine_tune(
            model, self.data.train, self.task, recipe=recipe, steps=steps, seed=seed,
            teacher=teacher, points=points, masks=zero_masks(model, sparse),
            spent=_clock(seconds), batch_size=self.effort.batch_size,
            bfloat16=self.effort.bfloat16 and not quantized,
        ).steps  # fmt: skip

    def _instead(self, candidate: Candidate, model: fx.GraphModule) -> str | None:
        """What guides a candidate that lacks what its recipe's kind compares; None elsewhere.

        Points become one where the blocks between them are skipped, so that a kind that fits the
        whole network need not fit a shorter one.
        """
        kind = find_distillation(candidate.recipe.distillation)
        if kind is None or kind.reads == "outputs" or not kind.asks(candidate.recipe):
            return None
        if not kind.fits(self._points) or kind.fits(self._matched(candidate, model)):
            return None
        return "none" if self.teacher is None else "response"

    def _matched(self, candidate: Candidate, model: fx.GraphModule) -> FeaturePoints:
        return match_points(self._points, self.elastic.graph, candidate, model)

    def _guide(
        self, kind: type[Distillation] | None, candidate: Candidate, model: fx.GraphModule
    ) -> tuple[nn.Module | None, FeaturePoints | None]:
        """The teacher, as a graph if its features are read, and where to read both networks."""
        if kind is None or kind.reads == "outputs":
            return self.teacher, None
        points = self._matched(candidate, model)
        if self.teacher is None or kind.guide == "itself":
            return None, points
        if isinstance(self.teacher, fx.GraphModule):
            return self.teacher, points
        return self._captured_teacher, replace(points, aligned=False)

    @cached_property
    def _points(self) -> FeaturePoints:
        return find_points(self.elastic.graph)

    @cached_property
    def _captured_teacher(self) -> fx.GraphModule:
        if self.teacher is None:
            raise ValueError("there is no teacher to capture")
        return trace(self.teacher, self.elastic.graph.example_inputs)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__}
        state.pop("_captured_teacher", None)
        if isinstance(self.teacher, fx.GraphModule):
            state["teacher"] = to_plain(self.teacher)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        teacher = state["teacher"]
        plain = isinstance(teacher, PlainGraph)
        self.__dict__.update({**state, "teacher": from_plain(teacher) if plain else teacher})


def _clock(seconds: float | None) -> Callable[[], float]:
    """The share of so many seconds that is over since this call."""
    began = time.monotonic()
    if seconds is None:
        return lambda: 0.0
    return lambda: (time.monotonic() - began) / seconds if seconds > 0 else 1.0


def checkpoint_path(folder: Path, candidate: Candidate) -> Path:
    """Where a finalised candidate is saved."""
    return folder / f"{candidate.id}.safetensors"


def save_model(model: nn.Module, path: Path) -> None:
    """Write a state dict so that the file is complete or absent."""
    save_tensors(model.state_dict(), path)


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors so that the file is complete or absent.

    Raises:
        StorageError: the folder is full or not writable.
    """
    copies = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(copies, temporary)
        except SafetensorError as error:
            raise StorageError(f"cannot write {path}: {error}") from error


def uniform(
    layers: Sequence[str] | Mapping[str, Layer], weight_bits: int, activation_bits: int
) -> Candidate:
    """The original architecture with one precision for all layers, named or given.

    Those that are given as embeddings have the bits of their weights alone: nothing enters them
    that could be rounded.
    """
    policy = LayerPolicy(weight_bits=weight_bits, activation_bits=activation_bits)
    stored = LayerPolicy(weight_bits=weight_bits)
    kinds = {n: la.kind for n, la in layers.items()} if isinstance(layers, Mapping) else {}
    embedded = {name for name, kind in kinds.items() if kind == "embedding"}
    return Candidate(layers={name: stored if name in embedded else policy for name in layers})
