"""Synthetic models are valid, run, and keep float layers float."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.errors import RequestError
from autocompress.graph.ops import Op
from autocompress.measurement.networks import NetworkBuilder, reference_networks
from autocompress.measurement.synthesis import guarded, pair, supported, synthesise
from autocompress.runtimes.registry import load_runtime


@pytest.mark.parametrize("network", reference_networks(6, seed=8), ids=lambda n: n.name)
def test_they_run(network) -> None:  # type: ignore[no-untyped-def]
    session = load_runtime().load(network.onnx())
    outputs = session.run({spec.name: spec.zeros() for spec in session.inputs})
    assert outputs[0].shape == (1, 10)
    assert np.isfinite(outputs[0]).all()


def test_a_float_layer_between_integers_is_guarded() -> None:
    precisions = iter([True, False, True])
    net = NetworkBuilder((16, 8, 8), lambda: next(precisions))
    x = net.op("relu", net.conv("input", 16))
    y = net.op("relu", net.conv(x, 16))
    ops = net.finish(net.conv(y, 16))
    by_name = {op.name: op for op in ops}
    quantized = frozenset({"input", x, y})
    between = by_name[by_name[y].inputs[0]]
    assert guarded(between, by_name[y], quantized)
    kernels = load_runtime().kernels(synthesise(ops, quantized))
    assert sum(k.op_type == "QLinearConv" for k in kernels) == 1


def test_unknown_operations_are_named() -> None:
    ops = (Op("x", "input", (), (1, 4)), Op("odd", "aten.erf", ("x",), (1, 4)))
    assert not supported(ops[1])
    with pytest.raises(RequestError, match=r"'odd'.*aten\.erf"):
        synthesise(ops, frozenset())


@pytest.mark.parametrize(
    ("given", "expected"), [(3, (3, 3)), ((2,), (2, 2)), ((1, 2), (1, 2)), ((), (1, 1))]
)
def test_spatial_attributes(given: int | tuple[int, ...], expected: tuple[int, int]) -> None:
    assert pair(given) == expected
