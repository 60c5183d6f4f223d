"""Calibration: the range of each activation tensor, seen on examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import gcd
from typing import Any, TypeAlias

import torch
from torch import fx

from autocompress.compression.ranges.base import Range, RangeMethod
from autocompress.compression.ranges.registry import range_method
from autocompress.errors import DataError
from autocompress.graph.watching import See, Watcher

#: A batch of inputs: one tensor, or a sequence whose first items are the model's inputs (what
#: follows, such as targets, is ignored).
InputBatch: TypeAlias = torch.Tensor | Sequence[torch.Tensor]

#: Values kept per tensor; the extremes are always exact.
_KEPT = 1 << 17


def model_inputs(module: fx.GraphModule, batch: InputBatch) -> tuple[torch.Tensor, ...]:
    """The part of ``batch`` that the model takes.

    Raises:
        DataError: the batch holds fewer tensors than the model has inputs.
    """
    wanted = sum(node.op == "placeholder" for node in module.graph.nodes)
    items = (batch,) if isinstance(batch, torch.Tensor) else tuple(batch)
    if len(items) < wanted:
        raise DataError(f"the model takes {wanted} inputs and a batch holds {len(items)} tensors")
    return items[:wanted]


def observe(
    module: fx.GraphModule,
    nodes: Collection[str],
    batches: Iterable[InputBatch],
    *,
    method: str = "percentile",
    bits: Mapping[str, int] | None = None,
) -> dict[str, Range]:
    """Ranges of the named nodes' tensors over the batches.

    Args:
        module: run as it is, without gradients, in evaluation mode.
        nodes: names of nodes that produce tensors.
        batches: of inputs.
        method: "percentile", "minmax", "mse" or "entropy"; see
            :mod:`autocompress.compression.ranges`.
        bits: of the codes that are to cover the ranges, by node; 8 where it says nothing.

    Raises:
        RequestError: an unknown method.
        DataError: there are no batches, or a tensor holds NaN or infinity.
    """
    chosen = range_method(method)
    held = list(batches)
    if not held:
        raise DataError("there are no calibration batches; give at least one")
    seen = {name: TensorRange(name, batches=len(held)) for name in nodes}

    def see(node: fx.Node, inputs: list[Any], value: Any) -> None:
        if node.name in seen:
            seen[node.name].add(value)

    run_over(module, held, see)
    return {name: found.range(chosen, (bits or {}).get(name, 8)) for name, found in seen.items()}


def run_over(module: fx.GraphModule, batches: Iterable[InputBatch], see: See) -> None:
    """Show ``see`` what passes through ``module`` on the batches: no gradients, evaluation mode."""
    watcher = Watcher(module, see)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                watcher.run(*model_inputs(module, batch))
    finally:
        module.train(was_training)


class TensorRange:
    """The range of one tensor: give it every batch's values, then ask.

    Args:
        name: of the tensor, for errors.
        batches: how many there will be.
    """

    def __init__(self, name: str, *, batches: int) -> None:
        self.name = name
        self.limit = max(1, _KEPT // batches)
        self.low = 0.0
        self.high = 0.0
        self.sample: list[torch.Tensor] = []

    def add(self, value: torch.Tensor) -> None:
        """Take a batch's values into account.

        Raises:
            DataError: they hold NaN or infinity.
        """
        low, high = (float(v) for v in torch.aminmax(value))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise DataError(
                f"tensor {self.name!r} holds NaN or infinity on the calibration data; check the "
                "model's weights and the scale of its inputs"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.sample.append(spread(value.detach().flatten(), self.limit, value[0].numel()).clone())

    def range(self, method: RangeMethod, bits: int = 8) -> Range:
        """The range of all values given, for codes of so many bits."""
        values = torch.cat(self.sample).double().sort().values
        return method.choose(values, self.low, self.high, bits=bits)


def spread(values: torch.Tensor, most: int, period: int, axis: int = 0) -> torch.Tensor:
    """At most so many of the values along an axis, evenly apart, from all places alike.

    A step with a factor in common with the period would meet the same places again and again, such
    as every image's left border.

    Args:
        values: any shape.
        most: entries to keep along the axis.
        period: after so many entries the places start over, as examples do.
        axis: that is thinned out.
    """
    step = -(-values.shape[axis] // most)
    while step > 1 and gcd(step, period) > 1:
        step += 1
    return values[(slice(None),) * axis + (slice(None, None, step),)]
