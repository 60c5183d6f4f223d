"""What the loss of the original depends on: gradients, their squares, and the Hessian's trace."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from autocompress.evaluation.task import Task
from autocompress.graph.hutchinson import hessian_diagonals
from autocompress.graph.watching import Watcher

#: Random directions of Hutchinson's estimate at the most.
_PROBES = 4
#: Examples that gradients are taken on, however little time there is.
_LEAST = 4
_NO_TIME = "there was no time for second derivatives: no score hessian_trace"


@dataclass(frozen=True, eq=False)
class Gradients:
    """Derivatives of the loss of a model in evaluation mode.

    Attributes:
        squared: by layer, the mean over examples of the squared gradient: the diagonal of the
            empirical Fisher information.
        outputs: by node, each example's gradient of its own loss with respect to the node's result
            when the example is run alone, shape ``(n, ...)`` with that result's shape behind n.
        last: by node, the result for the last of the examples, run alone.
        examples: how many examples the gradients are of.
        curvature: by layer, the mean of the Hessian's diagonal over its weight (its trace by the
            number of weights); empty where the model cannot be differentiated twice.
        note: why ``curvature`` is empty, or "".
    """

    squared: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    last: Mapping[str, torch.Tensor]
    examples: int
    curvature: Mapping[str, float]
    note: str = ""


def find_gradients(
    model: fx.GraphModule,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    task: Task,
    *,
    layers: Collection[str],
    nodes: Collection[str],
    seed: int,
    gradients_until: float | None = None,
    curvature_until: float | None = None,
) -> Gradients:
    """Differentiate the loss of ``model`` on some examples.

    Args:
        model: in evaluation mode; its parameters get no lasting gradient.
        inputs: shape ``(n, ...)``.
        targets: shape ``(n, ...)``.
        task: whose loss is taken.
        layers: names of the modules with a weight.
        nodes: names of the nodes whose results are asked for.
        seed: of the random directions.
        gradients_until: ``time.monotonic()`` after which no further example is taken.
        curvature_until: the same for random directions of the Hessian.
    """
    weights = {name: model.get_parameter(f"{name}.weight") for name in layers}
    squared = {name: torch.zeros_like(w) for name, w in weights.items()}
    outputs: dict[str, list[torch.Tensor]] = {name: [] for name in nodes}
    last: dict[str, torch.Tensor] = {}
    count = 0
    for i in range(len(inputs)):
        if i >= _LEAST and gradients_until is not None and time.monotonic() > gradients_until:
            break
        count += 1
        tape: dict[str, torch.Tensor] = {}

        def see(
            node: fx.Node, given: list[Any], value: Any, tape: dict[str, torch.Tensor] = tape
        ) -> None:
            if node.name in outputs:
                tape[node.name] = value

        with torch.enable_grad():
            answer = Watcher(model, see).run(inputs[i : i + 1])
            loss = task.loss(answer, targets[i : i + 1])
            seen = [tape[name] for name in outputs]
            found = torch.autograd.grad(loss, [*weights.values(), *seen], allow_unused=True)
        for name, gradient in zip(weights, found[: len(weights)], strict=True):
            if gradient is not None:
                squared[name] += gradient.square()
        for name, value, gradient in zip(outputs, seen, found[len(weights) :], strict=True):
            outputs[name].append(torch.zeros_like(value) if gradient is None else gradient)
            last[name] = value.detach()
    curvature, note = _curvature(
        model, inputs[:count], targets[:count], task, weights, seed, curvature_until
    )
    return Gradients(
        {name: total / count for name, total in squared.items()},
        {name: torch.stack(held) for name, held in outputs.items()},
        last, count, curvature, note,
    )  # fmt: skip


def _curvature(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    task: Task,
    weights: Mapping[str, torch.Tensor],
    seed: int,
    deadline: float | None,
) -> tuple[dict[str, float], str]:
    """Mean of the Hessian's diagonal of each weight, by Hutchinson's method.

    As HAWQ-V2 (Dong et al. 2020, arXiv:1911.03852): the expectation of ``v^T H v`` over random
    signs ``v`` is the trace; the directions of all layers are drawn at once.
    """
    if deadline is not None and time.monotonic() > deadline:
        return {}, _NO_TIME
    generator = torch.Generator().manual_seed(seed)
    totals = [0.0] * len(weights)
    done = 0
    try:
        with torch.enable_grad():
            loss = task.loss(model(inputs), targets)
        for diagonals in hessian_diagonals(loss, [*weights.values()], generator):
            for i, diagonal in enumerate(diagonals):
                totals[i] += 0.0 if diagonal is None else float(diagonal.sum())
            done += 1
            if done == _PROBES or (deadline is not None and time.monotonic() > deadline):
                break
    except (RuntimeError, NotImplementedError) as error:  # an operator without second derivative
        return (
            {},
            f"no score hessian_trace: no second derivatives ({str(error).splitlines()[0]})",
        )
    return {
        name: total / done / weight.numel()
        for (name, weight), total in zip(weights.items(), totals, strict=True)
    }, ""


def fitting(examples: int, bytes_each: int, limit_bytes: int) -> int:
    """How many of ``examples`` fit into memory at so many bytes each; at least one."""
    return max(1, min(examples, limit_bytes // max(1, bytes_each)))
