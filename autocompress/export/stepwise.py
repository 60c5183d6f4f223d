"""Simulation against runtime, one quantised tensor at a time.

Differences at the end of a network mix what every operation adds with what later ones make of it.
Here each operation starts from the runtime's own integers, so that only its own difference counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.export.onnx_export import ExportedModel
from autocompress.runtimes.base import Runtime

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Steps:
    """How far a simulated tensor is from the runtime's, in quantisation steps.

    Attributes:
        largest: over all elements.
        share: of elements that differ at all.
    """

    largest: int
    share: float


@torch.no_grad()
def steps_apart(
    exported: ExportedModel,
    simulated: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    runtime: Runtime,
) -> dict[str, Steps]:
    """For each quantised tensor, how far simulation and runtime are apart; by node name.

    Args:
        exported: what ``export_onnx`` returned.
        simulated: the graph that it was given.
        inputs: one tensor per input, batch first.
        runtime: runs the file.
    """
    compared = _Forced(simulated.eval(), _codes(exported, inputs, runtime))
    compared.run(*inputs)
    return compared.steps


def _codes(
    exported: ExportedModel, inputs: Sequence[torch.Tensor], runtime: Runtime
) -> dict[str, Codes]:
    """The runtime's integers of every quantised tensor, by node name."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(exported.path))
    for _, value in exported.integers:
        model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.UINT8, None))
    session = runtime.load(model.SerializeToString())
    results = session.run([x.numpy() for x in inputs])[1:]
    return {name: codes for (name, _), codes in zip(exported.integers, results, strict=True)}


class _Forced(fx.Interpreter):
    """Runs the simulated graph, with every quantised tensor replaced by the runtime's."""

    def __init__(self, module: fx.GraphModule, codes: Mapping[str, Codes]) -> None:
        super().__init__(module)
        self.codes = codes
        self.steps: dict[str, Steps] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "call_module" or not isinstance(value, torch.Tensor):
            return value
        quantizer = self.fetch_attr(str(n.target))
        if not isinstance(quantizer, ActivationQuantizer):
            return value
        name = n.all_input_nodes[0].name
        own = torch.round(value / quantizer.scale) + quantizer.zero_point
        theirs = torch.from_numpy(self.codes[name].astype(np.float32)).reshape(value.shape)
        apart = (own - theirs).abs()
        self.steps[name] = Steps(int(apart.max()), float((apart > 0).float().mean()))
        return (theirs - quantizer.zero_point) * quantizer.scale
