"""A graph that computes in torch as its deployed, quantised form does in the runtime.

The same rule decides what is simulated here, what :mod:`autocompress.export` writes and what is
priced: the *tensors* named by :func:`autocompress.graph.precision.quantized_tensors` are integers,
of as many bits as :func:`autocompress.graph.precision.tensor_bits` says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

from torch import fx, nn

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.calibration import InputBatch, observe
from autocompress.compression.forms import form_of
from autocompress.compression.ranges.base import Range
from autocompress.compression.stored.registry import weight_form
from autocompress.compression.stored_layers import (
    SimulatedConv2d,
    SimulatedEmbedding,
    SimulatedLinear,
    StoredLayer,
)
from autocompress.errors import RequestError
from autocompress.graph.modules import put_module
from autocompress.graph.ops import Op
from autocompress.graph.precision import scale_roots, tensor_bits

#: Where a simulated graph keeps its activation quantisers: ``<QUANTIZERS>.<node>``.
QUANTIZERS = "activation_quantizers"


def simulate_quantization(
    module: fx.GraphModule,
    ops: Sequence[Op],
    calibration_batches: Iterable[InputBatch],
    *,
    calibration: str = "percentile",
) -> fx.GraphModule:
    """A trainable copy of ``module`` that computes as its deployed form does.

    Layers with fewer than 32 weight bits become :class:`SimulatedConv2d`,
    :class:`SimulatedLinear` or :class:`SimulatedEmbedding` (their ``weight`` and ``bias`` stay
    float parameters); every quantised tensor passes an :class:`ActivationQuantizer`, except behind
    operations that only move values, which keep their input's scale. Activation ranges are
    observed with the weights already
    rounded.

    Args:
        module: a realised graph, batch norm folded; layers are ``call_module`` nodes.
        ops: the candidate's operations; their names are the graph's node names.
        calibration_batches: inputs; read only when some tensor is quantised.
        calibration: how ranges are chosen; see :mod:`autocompress.compression.ranges`.

    Raises:
        RequestError: bits without a deployed form, or operations that do not fit the graph.
        DataError: no calibration batches, or values that are not finite.
    """
    result = simulate_weights(module, ops)
    sources = quantizer_places(ops)
    if not sources:
        return result
    bits = tensor_bits(ops)
    ranges = observe(result, sources, calibration_batches, method=calibration, bits=bits)
    return add_quantizers(result, ops, ranges)


def quantizer_places(ops: Sequence[Op]) -> list[str]:
    """The tensors whose ranges a candidate needs, sorted."""
    return sorted(set(scale_roots(ops).values()))


def add_quantizers(
    result: fx.GraphModule, ops: Sequence[Op], ranges: Mapping[str, Range]
) -> fx.GraphModule:
    """Put activation quantisers into a graph with rounded weights, in place.

    Args:
        result: what :func:`simulate_weights` gave.
        ops: the candidate's operations.
        ranges: of the tensors of :func:`quantizer_places`.
    """
    roots, bits = scale_roots(ops), tensor_bits(ops)
    sources = sorted(set(roots.values()))
    nodes = {node.name: node for node in result.graph.nodes}
    quantizers = {name: _insert(result, nodes[name], ranges[name], bits[name]) for name in sources}
    for op in ops:
        if op.is_integer_layer:
            scale = f"{quantizers[roots[op.inputs[0]]]}.scale"
            _give_scale(result, nodes[op.name], scale)
    result.graph.lint()
    result.recompile()
    return result


def simulate_weights(module: fx.GraphModule, ops: Sequence[Op]) -> fx.GraphModule:
    """A copy of ``module`` whose weights are rounded as stored; activations stay float.

    Raises:
        RequestError: bits without a deployed form, or operations that do not fit the graph.
    """
    result = copy.deepcopy(module)
    nodes = {node.name: node for node in result.graph.nodes}
    done: dict[str, tuple[int, int]] = {}
    for op in ops:
        if op.kind != "output" and op.name not in nodes:
            raise RequestError(
                f"operation {op.name!r} is no node of the graph; give the operations of the "
                "candidate that the graph was realised from"
            )
        if op.layer is None:
            continue
        form_of(op.weight_bits, op.activation_bits, op.layer)
        bits = (op.weight_bits, op.activation_bits)
        if done.setdefault(str(nodes[op.name].target), bits) != bits:
            raise RequestError(f"layer {op.layer!r} is called twice with different bits; use one")
        if op.stores_rounded:
            _simulate_layer(result, str(nodes[op.name].target), op)
    return result


def recalibrate(
    simulated: fx.GraphModule,
    batches: Iterable[InputBatch],
    *,
    calibration: str = "percentile",
) -> None:
    """Set all activation ranges again, in place, from a simulated graph as it is now.

    Use it after training: weights have moved, and with them the activations.
    """
    found: dict[str, ActivationQuantizer] = {}
    for node in simulated.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith(QUANTIZERS):
            quantizer, source = simulated.get_submodule(str(node.target)), node.args[0]
            if isinstance(quantizer, ActivationQuantizer) and isinstance(source, fx.Node):
                found[source.name] = quantizer
    if not found:
        return
    bits = {name: quantizer.bits for name, quantizer in found.items()}
    for name, seen in observe(simulated, found, batches, method=calibration, bits=bits).items():
        found[name].set_range(seen.low, seen.high)


def _simulate_layer(root: fx.GraphModule, name: str, op: Op) -> None:
    layer = root.get_submodule(name)
    made: nn.Module
    if isinstance(layer, StoredLayer):
        return
    if not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
        raise RequestError(
            f"layer {name!r} is a {type(layer).__name__}; only Conv2d, Linear and Embedding are "
            "quantised"
        )
    form = weight_form(
        layer.weight.detach(),
        op.weight_bits,
        codebook=op.codebook or None,
        scaled=bool(op.attribute("scaled")),
    )
    if isinstance(layer, nn.Conv2d):
        made = SimulatedConv2d(layer, form)
    elif isinstance(layer, nn.Linear):
        made = SimulatedLinear(layer, form)
    else:
        made = SimulatedEmbedding(layer, form)
    made.train(layer.training)
    put_module(root, name, made)


def _insert(root: fx.GraphModule, node: fx.Node, seen: Range, bits: int) -> str:
    """Put a quantiser behind ``node``; its module name."""
    quantizer = ActivationQuantizer(bits)
    quantizer.set_range(seen.low, seen.high)
    name = f"{QUANTIZERS}.{node.name}"
    root.add_submodule(name, quantizer)
    with root.graph.inserting_after(node):
        made = root.graph.create_node(
            "call_module", name, (node,), {}, name=f"{node.name}_quantized"
        )
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
    return name


def _give_scale(root: fx.GraphModule, node: fx.Node, buffer: str) -> None:
    with root.graph.inserting_before(node):
        scale = root.graph.get_attr(buffer)
    node.args = (node.args[0], scale)
