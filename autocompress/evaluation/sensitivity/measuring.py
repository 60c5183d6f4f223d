"""The true loss and metric of candidates that differ little from the original.

Exactly what :class:`autocompress.evaluation.evaluator.CandidateEvaluator` gives for them without
training, only that what lies before the first difference to the original is not computed again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx, nn

from autocompress.compression.calibration import TensorRange
from autocompress.compression.ranges.base import Range
from autocompress.compression.ranges.registry import range_method
from autocompress.compression.simulation import add_quantizers, quantizer_places, simulate_weights
from autocompress.core.candidate import Candidate
from autocompress.elastic.batch_norm import averaging, in_groups, reestimate_batch_norm
from autocompress.elastic.realise import realise
from autocompress.errors import DivergedError
from autocompress.evaluation.evaluator import CandidateEvaluator
from autocompress.evaluation.sensitivity.frontier import Frontier
from autocompress.evaluation.sensitivity.suffix import Suffix, first_difference
from autocompress.evaluation.splits import Split
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.ops import Op
from autocompress.graph.precision import tensor_bits

#: Places where results are kept: two states of the original on the examples and on the calibration
#: batches each, and its results in training mode.
_FRONTIERS = 5
#: Examples at a time; the same as where whole models are evaluated.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model scores on the examples.

    Attributes:
        loss: the task's loss over all of them.
        metric: the task's metric, in its own unit.
    """

    loss: float
    metric: float


class Original:
    """The original in one state of its batch norms, and its results at a moving place.

    Args:
        raw: realised, with the batch norms as layers of their own; not changed.
        measurer: whose examples are run.
    """

    def __init__(self, raw: fx.GraphModule, measurer: TrueLoss) -> None:
        self.raw = raw
        self.folded = fold_batch_norm(copy.deepcopy(raw)).eval()
        self._measurer = measurer

    @cached_property
    def outcome(self) -> Outcome:
        """What it scores itself."""
        return self._measurer.score(self.folded, self)

    @cached_property
    def examples(self) -> Frontier:
        """Results of the folded model on the examples."""
        return Frontier(self.folded, self._measurer.inputs, self._measurer.share)

    @cached_property
    def calibration(self) -> Frontier:
        """Results of the folded model on the calibration batches."""
        return Frontier(self.folded, self._measurer.calibration, self._measurer.share)


class TrueLoss:
    """Loss and metric of candidates without training; the shared weights are never changed.

    Args:
        evaluator: says how a candidate is prepared.
        examples: what candidates are judged by.
        limit_bytes: of inputs and results that are kept at one time. The inputs are kept once,
            whatever they need; results of each state of the original on each set of them have an
            equal share of what is left.

    Attributes:
        inputs: the examples', in batches.
    """

    def __init__(self, evaluator: CandidateEvaluator, examples: Split, *, limit_bytes: int) -> None:
        self.evaluator = evaluator
        self.examples = examples
        self.limit_bytes = limit_bytes
        batches = list(examples.batches(_BATCH))
        self.inputs = [x for x, _ in batches]
        self._targets = torch.cat([y for _, y in batches])

    @cached_property
    def calibration(self) -> list[torch.Tensor]:
        """Inputs that activations' ranges are taken from."""
        return self.evaluator.calibration_batches()

    @cached_property
    def _statistics(self) -> list[torch.Tensor]:
        """Inputs that batch norm statistics are re-estimated from."""
        return list(in_groups(self.evaluator.statistics_batches()))

    @cached_property
    def share(self) -> int:
        """Bytes that each frontier may keep beside the inputs."""
        held = [*self.inputs, *self.calibration]
        if any(_norms(self.kept.raw)):  # else nobody asks for statistics
            held += self._statistics
        spent = sum(x.numel() * x.element_size() for x in held)
        return max(0, self.limit_bytes - spent) // _FRONTIERS

    @cached_property
    def kept(self) -> Original:
        """The original as it is: what candidates of other bit-widths are compared with."""
        return Original(realise(self.evaluator.elastic, self.evaluator.original), self)

    @cached_property
    def reestimated(self) -> Original:
        """The original with batch norm statistics re-estimated, as structural candidates' are.

        The same as :attr:`kept` when it has no batch norms.
        """
        raw = copy.deepcopy(self.kept.raw)
        if not reestimate_batch_norm(raw, self.evaluator.statistics_batches()):
            return self.kept
        return Original(raw, self)

    def reference(self, candidate: Candidate) -> Original:
        """The original in the state that the candidate's batch norms will be in."""
        changed = self.evaluator.changes_structure(candidate)
        return self.reestimated if changed else self.kept

    @torch.no_grad()
    def measure(self, candidate: Candidate) -> Outcome:
        """What the candidate scores; costs less the later in the model it first differs.

        Raises:
            DivergedError: its outputs are not finite.
            RequestError: it does not fit the model.
        """
        model = realise(self.evaluator.elastic, candidate)
        base = self.reference(candidate)
        if base is not self.kept:
            self._restate(model)
        fold_batch_norm(model)
        ops = self.evaluator.elastic.graph.operations(candidate)
        if any(op.stores_rounded for op in ops):
            model = self._quantized(model, ops, base)
        return self.score(model.eval(), base)

    @torch.no_grad()
    def score(self, model: fx.GraphModule, base: Original) -> Outcome:
        """Loss and metric of a model that begins as the base's folded one does."""
        cut = first_difference(base.folded, model)
        suffix, values = _behind(base.folded, model, cut, base.examples)
        outputs = torch.cat([suffix.run(held) for held in values])
        if not bool(torch.isfinite(outputs).all()):
            raise DivergedError("the model's outputs hold NaN or infinity")
        task = self.evaluator.task
        return Outcome(
            float(task.loss(outputs, self._targets)), task.evaluate(outputs, self._targets)
        )

    # -- batch norm statistics --------------------------------------------------------------------

    @cached_property
    def _training(self) -> Frontier:
        """Results on the statistics' batches of the original with norms in training mode."""
        model = copy.deepcopy(self.kept.raw)
        for norm in _norms(model):
            norm.train()
        return Frontier(model, self._statistics, self.share)

    def _restate(self, model: fx.GraphModule) -> None:
        """Re-estimate the statistics of ``model``: those of the original up to the difference."""
        known = dict(self.reestimated.raw.named_modules())
        cut = first_difference(self.kept.raw, model)
        suffix, values = _behind(self._training.module, model, cut, self._training)
        behind = suffix.norms()
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module not in behind:
                module.load_state_dict(known[name].state_dict())
        with averaging(behind):
            for held in values:
                suffix.run(held)

    # -- activation ranges ------------------------------------------------------------------------

    def _quantized(
        self, model: fx.GraphModule, ops: Sequence[Op], base: Original
    ) -> fx.GraphModule:
        """The same as ``simulate_quantization``, from the first difference on."""
        rounded = simulate_weights(model, ops)
        places = quantizer_places(ops)
        if not places:
            return rounded
        return add_quantizers(rounded, ops, self._ranges(rounded, places, base, tensor_bits(ops)))

    def _ranges(
        self,
        model: fx.GraphModule,
        places: Sequence[str],
        base: Original,
        bits: Mapping[str, int],
    ) -> dict[str, Range]:
        cut = first_difference(base.folded, model)
        positions = {node.name: i for i, node in enumerate(base.folded.graph.nodes)}
        # every tensor whose range is wanted has to be seen: kept, and read by what comes behind
        cut = min([cut, *(positions[p] + 1 for p in places if p in positions)])
        suffix, values = _behind(base.folded, model, cut, base.calibration)
        seen = {name: TensorRange(name, batches=len(values)) for name in places}
        for held in values:
            left = set(places)

            def watch(name: str, value: torch.Tensor, left: set[str] = left) -> bool:
                if name in left:
                    seen[name].add(value)
                    left.discard(name)
                return not left

            suffix.run(held, watch)
        method = range_method("percentile")
        return {name: found.range(method, bits[name]) for name, found in seen.items()}


def _behind(
    base: fx.GraphModule, model: fx.GraphModule, cut: int, frontier: Frontier
) -> tuple[Suffix, list[dict[str, torch.Tensor]]]:
    """What of ``model`` has to be run, and for each batch what it reads."""
    suffix = Suffix(base, model, frontier.affordable(cut))
    values = frontier.at(suffix.cut)
    return suffix, [{name: held[name] for name in suffix.needed} for held in values]


def _norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module
