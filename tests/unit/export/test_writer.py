from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import RequestError
from autocompress.export.writer import OnnxWriter, pack_codes, unpack_codes

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(st.sampled_from([8, 4, 2]), SHAPES, st.data())
@settings(max_examples=200, deadline=None)
def test_codes_come_back(bits: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(low, high)))
    packed = pack_codes(codes, bits)
    assert len(packed) == -(-codes.size * bits // 8)
    assert np.array_equal(unpack_codes(packed, bits, shape), codes)


@pytest.mark.parametrize(("bits", "kind"), [(4, TensorProto.INT4), (2, TensorProto.INT2)])
def test_codes_are_packed_as_onnx_packs_them(bits: int, kind: int) -> None:
    levels = (1 << (bits - 1)) - 1
    codes = np.random.default_rng(0).integers(-levels - 1, levels + 1, 31).astype(np.int8)
    tensor = TensorProto(data_type=kind, dims=[31], raw_data=pack_codes(codes, bits))
    assert np.array_equal(numpy_helper.to_array(tensor).astype(np.int8), codes)


def test_bad_codes_are_refused() -> None:
    with pytest.raises(RequestError, match="5 bits"):
        pack_codes(np.zeros(3, np.int8), 5)
    with pytest.raises(RequestError, match="are not"):
        unpack_codes(b"\0\0", 4, (9,))


def test_equal_constants_are_stored_once() -> None:
    writer = OnnxWriter()
    first = writer.constant(np.zeros(3, np.float32), name="a")
    assert writer.constant(np.zeros(3, np.float32), name="b") == first
    assert writer.constant(np.zeros(3, np.int32)) != first
    assert writer.constant(np.zeros((3, 1), np.float32)) != first
    assert len(writer.constants) == 3


def test_names_are_never_used_twice() -> None:
    writer = OnnxWriter()
    names = [writer.take("v1"), writer.fresh("v"), writer.take("v1"), writer.fresh("v")]
    assert len(set(names)) == 4


def test_unused_constants_are_left_out_and_values_renamed() -> None:
    writer = OnnxWriter()
    writer.constant(np.zeros(9, np.float32))
    value = writer.node("Add", [writer.take("x"), writer.scalar(1.0)])
    writer.rename(value, "y")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    model = writer.model(info[:1], info[1:])
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.initializer) == 1
    assert model.graph.node[0].output[0] == "y"


def test_foreign_operators_are_refused() -> None:
    writer = OnnxWriter()
    writer.node("Thing", [], domain="elsewhere")
    with pytest.raises(RequestError, match="elsewhere"):
        writer.model([], [])


def test_zeros_have_no_sign() -> None:
    writer = OnnxWriter()
    name = writer.constant(np.array([-0.0, 1.0, 0.0], np.float32))
    (stored,) = (t for t in writer.constants if t.name == name)
    assert stored.raw_data == np.array([0.0, 1.0, 0.0], np.float32).tobytes()
