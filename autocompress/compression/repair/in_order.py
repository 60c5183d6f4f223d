"""Visits the layers of a graph in order of execution, with what enters each by then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx

from autocompress.compression.calibration import InputBatch, model_inputs


@torch.no_grad()
def in_order(
    module: fx.GraphModule,
    batches: Sequence[InputBatch],
    layers: Collection[str],
    visit: Callable[[str, Sequence[torch.Tensor]], None],
) -> None:
    """Run ``module`` over all batches at once, one node after the other, in evaluation mode.

    Before a layer runs, ``visit`` is told its name and its inputs, one tensor a batch; it may
    change the layer, and everything behind it sees the change.

    Args:
        module: layers are ``call_module`` nodes.
        batches: of inputs; their activations are held together, as far as they are still needed.
        layers: names of the modules to visit.
        visit: called once for each call of such a module.
    """
    was_training = module.training
    module.eval()
    runs = [fx.Interpreter(module) for _ in batches]
    for run, batch in zip(runs, batches, strict=True):
        run.args_iter = iter(model_inputs(module, batch))
    try:
        for node in module.graph.nodes:
            if node.op == "call_module" and str(node.target) in layers:
                visit(str(node.target), [_value(run, node.args[0]) for run in runs])
            for run in runs:
                run.env[node] = run.run_node(node)
                for spent in run.user_to_last_uses.get(node, ()):
                    del run.env[spent]
    finally:
        module.train(was_training)


def _value(run: fx.Interpreter, node: Any) -> torch.Tensor:
    value: torch.Tensor = run.env[node]
    return value
