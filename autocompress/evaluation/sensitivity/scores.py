"""Cheap scores of settings: what they are likely to cost, without running the model under them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import fx

from autocompress.compression.pruning import WIDTH
from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.evaluation.sensitivity.gradients import Gradients, find_gradients, fitting
from autocompress.evaluation.sensitivity.perturbation import Perturbations
from autocompress.evaluation.sensitivity.settings import Setting
from autocompress.evaluation.task import Task
from autocompress.graph.inspect import node_shapes
from autocompress.graph.selection import DEPTH

#: Score -> whether a larger value means a larger loss. In the order in which they are tried.
SCORES = {
    "output_fisher": True,
    "taylor": True,
    "hessian_trace": True,
    "fisher_diagonal": True,
    "output_sqnr_db": False,
    "weight_error": True,
}
#: Shares of the time by which gradients, and after them second derivatives, are to be there.
_GRADIENTS, _CURVATURE = 0.35, 0.6
#: Of the largest value: what an example's result may differ by when it is run among others.
_SAME = 1e-3


def _share(share: float, deadline: float | None) -> float | None:
    """When that share of the time from now to ``deadline`` is over."""
    now = time.monotonic()
    return None if deadline is None else now + share * (deadline - now)


@dataclass
class _Strike:
    """What a setting does to the results that it strikes first, summed up over them.

    Attributes:
        dots: of each example's gradient with the change; None once a result did not hold the
            examples apart.
    """

    dots: torch.Tensor | None
    noise: float = 0.0
    signal: float = 0.0
    sites: int = field(default=0)

    def add(self, value: torch.Tensor, change: torch.Tensor, dots: torch.Tensor | None) -> None:
        self.dots = None if self.dots is None or dots is None else self.dots + dots
        self.noise += float(change.square().sum())
        self.signal += float(value.square().sum())
        self.sites += 1


class Scorer:
    """Scores settings from one look at the original.

    Args:
        elastic: the weights.
        original: the candidate that leaves the model as it is.
        model: the realised original, batch norms not folded, in evaluation mode.
        settings: to be scored.
        task: whose loss is differentiated.
        limit_bytes: of results and gradients that are kept; fewer examples are taken otherwise.

    Attributes:
        examples: how many were taken.
        note: which score there is not, and why, or "".
        unscored: settings that there was no time for.
        failed: settings that could not be scored, with the reason.
        mixed: nodes whose results do not hold the examples apart; settings that strike there have
            neither ``output_fisher`` nor ``taylor``.
    """

    def __init__(
        self,
        elastic: ElasticModel,
        original: Candidate,
        model: fx.GraphModule,
        settings: Sequence[Setting],
        task: Task,
        *,
        limit_bytes: int,
    ) -> None:
        self.model = model
        self.settings = settings
        self.task = task
        self.limit_bytes = limit_bytes
        self.perturbations = Perturbations(elastic, original)
        self.graph = elastic.graph
        self._calls: dict[str, list[str]] = {}
        for node in model.graph.nodes:
            if node.op == "call_module":
                self._calls.setdefault(str(node.target), []).append(node.name)
        self._present = {node.name: node for node in model.graph.nodes}
        self.examples = self.unscored = 0
        self.note = ""
        self.failed: Mapping[Setting, str] = {}
        self.mixed: frozenset[str] = frozenset()

    def scores(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        seed: int,
        deadline: float | None = None,
    ) -> dict[Setting, dict[str, float]]:
        """The scores of every setting; a score that does not apply is left out.

        - ``output_fisher``: half the mean over examples of the squared product of the loss's
          gradient with the change of the output (of the layer, of the readers of removed channels,
          of skipped blocks): the second-order term of the empirical Fisher information.
        - ``taylor``: the absolute mean of the same product, the first-order term (Molchanov et al.
          2017, arXiv:1611.06440).
        - ``hessian_trace``: half the mean of the Hessian's diagonal times the squared change of the
          weights (HAWQ-V2, Dong et al. 2020, arXiv:1911.03852).
        - ``fisher_diagonal``: half the sum of the squared gradients, meaned over examples, times
          the squared changes of the weights (optimal brain damage, LeCun et al. 1990, with the
          Fisher information for the Hessian).
        - ``output_sqnr_db``: decibels of the output over its change.
        - ``weight_error``: squared change of the weights by their squared sum.

        Args:
            inputs: shape ``(n, ...)``; fewer are taken where memory is short.
            targets: shape ``(n, ...)``.
            seed: of the Hessian's random directions.
            deadline: ``time.monotonic()`` after which settings get no scores any more.
        """
        sites = self._sites()
        count = fitting(len(inputs), self._bytes_each(inputs[:1]), self.limit_bytes)
        inputs, targets = inputs[:count], targets[:count]
        layers = [name for name in self.graph.layers if name in self._calls]
        gradients = find_gradients(
            self.model, inputs, targets, self.task, layers=layers, nodes=list(sites), seed=seed,
            gradients_until=_share(_GRADIENTS, deadline),
            curvature_until=_share(_CURVATURE, deadline),
        )  # fmt: skip
        count = self.examples = gradients.examples
        self.note = gradients.note
        strikes = {setting: _Strike(torch.zeros(count)) for setting in self.settings}
        with torch.no_grad():
            found = _Striking(
                self.model, sites, gradients, strikes,
                lambda setting: self._of_weights(setting, gradients), deadline,
            )  # fmt: skip
            found.run(inputs[:count])
            self.unscored = len(found.late)
            self.mixed = frozenset(found.mixed)
            of_weights = {setting: found.of_weights(setting) for setting in self.settings}
            self.failed = found.failed
            return {
                setting: {}
                if setting in found.late or setting in found.failed
                else {**_of_strike(strikes[setting]), **of_weights[setting]}
                for setting in self.settings
            }

    def _bytes_each(self, example: torch.Tensor) -> int:
        """Bytes of one example's results, with what differentiating twice keeps beside them."""
        shapes = node_shapes(self.model, (example,))
        return 4 * 4 * sum(prod(shape) for shape in shapes.values())

    def _sites(self) -> dict[str, list[tuple[Setting, _Change]]]:
        """For each node that settings strike, the settings with what becomes of its result."""
        found: dict[str, list[tuple[Setting, _Change]]] = {}
        for setting in self.settings:
            for node, change in self._changes(setting):
                found.setdefault(node, []).append((setting, change))
        return found

    def _changes(self, setting: Setting) -> list[tuple[str, _Change]]:
        kind = setting.kind + ":"
        if kind == DEPTH:
            return self._skipped(setting)
        if kind == WIDTH:
            removed = self.perturbations.removed(setting)
            return [
                (node, _without_inputs(self.perturbations, name, ins))
                for name, (_, ins) in removed.items()
                if not bool(ins.all())
                for node in self._calls.get(name, ())
            ]
        if len(setting.layers) != 1:
            return []
        (name,) = setting.layers
        return [(n, _compressed(self.perturbations, setting)) for n in self._calls.get(name, ())]

    def _skipped(self, setting: Setting) -> list[tuple[str, _Change]]:
        kept = int(setting.candidate.architecture[setting.gene])
        blocks = self.graph.stages[setting.target][kept:]
        return [
            (block.output, _replaced_by(self._present[block.input]))
            for block in blocks
            if block.output in self._present and block.input in self._present
        ]

    def _of_weights(self, setting: Setting, gradients: Gradients) -> dict[str, float]:
        changes = self.perturbations.weight_changes(setting)
        if not changes or any(name not in gradients.squared for name in changes):
            return {}
        original = self.perturbations.original
        squares = {name: float(change.square().sum()) for name, change in changes.items()}
        total = sum(float(original[name].weight.square().sum()) for name in changes)
        found = {
            "weight_error": sum(squares.values()) / max(total, 1e-30),
            "fisher_diagonal": 0.5
            * sum(float((gradients.squared[n] * c.square()).sum()) for n, c in changes.items()),
        }
        if gradients.curvature:
            trace = sum(gradients.curvature[name] * square for name, square in squares.items())
            found["hessian_trace"] = 0.5 * trace
        return found


#: From a node, its arguments' values and its result to the result under a setting.
_Change = Callable[[fx.Node, Mapping[fx.Node, Any], torch.Tensor], torch.Tensor]


def _compressed(perturbations: Perturbations, setting: Setting) -> _Change:
    def change(node: fx.Node, env: Mapping[fx.Node, Any], value: torch.Tensor) -> torch.Tensor:
        found = perturbations.compressed(setting)
        return value if found is None else found(env[node.all_input_nodes[0]])

    return change


def _without_inputs(perturbations: Perturbations, name: str, kept: torch.Tensor) -> _Change:
    def change(node: fx.Node, env: Mapping[fx.Node, Any], value: torch.Tensor) -> torch.Tensor:
        part = perturbations.original[name]
        x = env[node.all_input_nodes[0]]
        shape = [1, -1, 1, 1] if part.kind == "conv" else [-1]
        return part(x * kept.reshape(shape))

    return change


def _replaced_by(source: fx.Node) -> _Change:
    def change(node: fx.Node, env: Mapping[fx.Node, Any], value: torch.Tensor) -> torch.Tensor:
        replacement: torch.Tensor = env[source]
        return replacement

    return change


class _Striking(fx.Interpreter):
    """Runs the original, and beside each struck node what every setting makes of it."""

    def __init__(
        self,
        model: fx.GraphModule,
        sites: Mapping[str, Sequence[tuple[Setting, _Change]]],
        gradients: Gradients,
        strikes: Mapping[Setting, _Strike],
        weigh: Callable[[Setting], dict[str, float]],
        deadline: float | None,
    ) -> None:
        super().__init__(model, garbage_collect_values=False)
        self.sites = sites
        self.gradients = gradients
        self.strikes = strikes
        self.weigh = weigh
        self.deadline = deadline
        self.late: set[Setting] = set()
        self.failed: dict[Setting, str] = {}
        self.mixed: set[str] = set()
        self._weighed: dict[Setting, dict[str, float]] = {}

    def of_weights(self, setting: Setting) -> dict[str, float]:
        """Scores of the setting's weights, computed once; empty where the setting has none."""
        if setting in self.late or setting in self.failed:
            return {}
        if setting not in self._weighed:
            try:
                self._weighed[setting] = self.weigh(setting)
            except Exception as error:
                self._fail(setting, error)
                return {}
        return self._weighed[setting]

    def _fail(self, setting: Setting, error: Exception) -> None:
        """Whatever one setting meets with takes no scores from the others."""
        first = str(error).strip().partition("\n")[0]
        self.failed[setting] = f"{type(error).__name__}: {first}"

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        sites = self.sites.get(n.name, ())
        if sites and not self._apart(n.name, value):
            self.mixed.add(n.name)
        for setting, change in sites:
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.late.add(setting)
                continue
            if setting in self.failed:
                continue
            try:
                difference = change(n, self.env, value) - value
                self.strikes[setting].add(value, difference, self._dots(n.name, difference))
            except Exception as error:
                self._fail(setting, error)
                continue
            self.of_weights(setting)  # while the setting's weights are at hand
        return value

    def _apart(self, name: str, value: torch.Tensor) -> bool:
        """Whether it is known which part of a result is which example's."""
        alone = self.gradients.last[name]
        parts = by_example(value, tuple(alone.shape), self.gradients.examples)
        if parts is None:
            return False
        # rows may fold evenly and still be sorted by something else first, such as places
        return bool((parts[-1] - alone).abs().max() <= _SAME * alone.abs().max())

    def _dots(self, name: str, difference: torch.Tensor) -> torch.Tensor | None:
        if name in self.mixed:
            return None
        gradient = self.gradients.outputs[name]
        parts = by_example(difference, tuple(gradient.shape[1:]), self.gradients.examples)
        return None if parts is None else (gradient * parts).reshape(len(parts), -1).sum(1)


def by_example(batch: torch.Tensor, alone: tuple[int, ...], examples: int) -> torch.Tensor | None:
    """A result for a batch, taken apart into the examples; None where the shapes do not say how.

    The examples are along the one dimension that grew; a dimension that grew from more than one
    (windows, tokens) is taken to hold the rows of an example side by side.

    Args:
        batch: the result for all examples.
        alone: shape of the result for one example.
        examples: how many there are.

    Returns:
        Shape ``(examples, *alone)``, or None.
    """
    if examples == 1:
        return batch.unsqueeze(0) if tuple(batch.shape) == alone else None
    if batch.dim() != len(alone):
        return None
    grown = [d for d, (n, one) in enumerate(zip(batch.shape, alone, strict=True)) if n != one]
    if len(grown) != 1 or batch.shape[grown[0]] != examples * alone[grown[0]]:
        return None
    (at,) = grown
    apart = batch.reshape(*batch.shape[:at], examples, alone[at], *batch.shape[at + 1 :])
    return apart.movedim(at, 0)


def _of_strike(strike: _Strike) -> dict[str, float]:
    if not strike.sites:
        return {}
    noise, signal = max(strike.noise, 1e-30), max(strike.signal, 1e-30)
    found = {"output_sqnr_db": 10.0 * math.log10(signal / noise)}
    if strike.dots is not None:
        found["output_fisher"] = 0.5 * float(strike.dots.square().mean())
        found["taylor"] = abs(float(strike.dots.mean()))
    return found
