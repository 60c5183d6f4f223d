from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from autocompress.errors import RequestError, StorageError
from autocompress.export.packed import (
    pack,
    pack_bytes,
    packed_size,
    unpack,
    unpack_bytes,
)
from autocompress.export.streams import (
    Kind,
    arrange,
    arranged_length,
    compress,
    decompress,
    restore,
)
from autocompress.export.writer import pack_codes

TYPES = (
    TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64,
    TensorProto.FLOAT16, TensorProto.INT4, TensorProto.INT2, TensorProto.DOUBLE,
)  # fmt: skip


def _model(tensors: list[tuple[int, bytes]]) -> bytes:
    graph = helper.make_graph([], "g", [], [])
    for i, (kind, raw) in enumerate(tensors):
        graph.initializer.append(TensorProto(name=f"t{i}", data_type=kind, raw_data=raw))
    return bytes(helper.make_model(graph).SerializeToString())


def _quantised(bits: int, seed: int = 0, size: int = 4096) -> bytes:
    rng = np.random.default_rng(seed)
    levels = 2 ** (bits - 1) - 1
    codes = np.clip(np.round(rng.laplace(0, levels / 4, size)), -levels, levels)
    return pack_codes(codes.astype(np.int8), bits)


@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.binary(max_size=200)), max_size=8),
)
@settings(max_examples=100, deadline=None)
def test_any_model_comes_back_bit_by_bit(tensors: list[tuple[int, bytes]]) -> None:
    data = _model(tensors)
    assert unpack_bytes(pack_bytes(data)) == data


@given(st.binary(max_size=600), st.sampled_from(list(Kind)))
@settings(max_examples=200, deadline=None)
def test_every_arrangement_is_exact(data: bytes, kind: Kind) -> None:
    arranged = arrange(data, kind)
    assert len(arranged) == arranged_length(len(data), kind)
    assert restore(arranged, kind) == data


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_streams_come_back(data: bytes) -> None:
    assert decompress(compress(data), len(data)) == data
    assert len(compress(data)) <= len(data) + 1


@pytest.mark.parametrize(
    ("bits", "kind"),
    [(8, TensorProto.INT8), (4, TensorProto.INT4), (2, TensorProto.INT2)],
    ids=["int8", "int4", "int2"],
)
def test_structure_makes_it_smaller(bits: int, kind: int) -> None:
    data = _model([(kind, _quantised(bits, size=16384))])
    assert len(pack_bytes(data)) < 0.95 * len(data)


def test_zeros_make_it_smaller() -> None:
    rng = np.random.default_rng(0)
    codes = np.clip(np.round(rng.normal(0, 2.5, 8192)), -7, 7).astype(np.int8)
    sizes = []
    for share in (0.0, 0.5, 0.9):
        sparse = np.where(rng.random(8192) < share, 0, codes).astype(np.int8)
        sizes.append(len(pack_bytes(_model([(TensorProto.INT4, pack_codes(sparse, 4))]))))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.5 * sizes[0]


def test_files(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    data = _model([(TensorProto.INT8, _quantised(8))])
    source.write_bytes(data)
    packed = pack(source)
    assert packed == tmp_path / "model.acz"
    assert packed.stat().st_size == packed_size(source)
    assert unpack(packed, tmp_path / "again.onnx").read_bytes() == data
    source.unlink()
    assert unpack(packed) == source
    assert source.read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.onnx", "model.acz", "model.onnx"]


def test_a_flipped_bit_never_restores_another_file() -> None:
    data = _model([(TensorProto.INT4, _quantised(4, size=512))])
    packed = pack_bytes(data)
    caught = 0
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 1 << at % 8
        try:
            assert unpack_bytes(bytes(damaged)) == data  # a bit that the decoder does not read
        except StorageError:
            caught += 1
    assert caught >= len(packed) - 16
    with pytest.raises(StorageError, match="behind its end"):
        unpack_bytes(packed + b"x")


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_truncated_files_are_caught(data: st.DataObject) -> None:
    packed = pack_bytes(_model([(TensorProto.INT8, _quantised(8, size=256))]))
    with pytest.raises(StorageError):
        unpack_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_anything_behind_the_magic_is_refused(data: bytes) -> None:
    with pytest.raises(StorageError):
        unpack_bytes(b"ACZ1" + data)


def test_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no ONNX model"):
        pack_bytes(b"\xff" * 40)
    with pytest.raises(StorageError, match="cannot read"):
        pack(tmp_path / "missing.onnx")
    with pytest.raises(StorageError, match="no packed model"):
        unpack_bytes(b"something else")


def test_external_data_is_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(_model([(TensorProto.FLOAT, bytes(4096))]))
    model.graph.initializer[0].dims[:] = [1024]
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="data.bin", size_threshold=0)
    with pytest.raises(RequestError, match="another file"):
        pack(path)
