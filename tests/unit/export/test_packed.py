from __future__ import annotations

import contextlib
import hashlib
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from autocompress.errors import RequestError, StorageError
from autocompress.export.packing import container
from autocompress.export.packing.ans import _eight
from autocompress.export.packing.codecs.adaptive import FineAdaptive
from autocompress.export.packing.codecs.base import Reading
from autocompress.export.packing.codecs.registry import CODECS, decode_stream, encode_stream
from autocompress.export.packing.container import (
    pack,
    pack_bytes,
    packed_size,
    unpack,
    unpack_bytes,
)
from autocompress.export.packing.dictionary import DICTIONARY
from autocompress.export.packing.numbers import varint
from autocompress.export.packing.probabilities import COARSE, FINE, Pace, Prior, blocks
from autocompress.export.writer import pack_codes

#: Every element type that ONNX has.
TYPES = tuple(v for n, v in TensorProto.DataType.items() if n not in ("UNDEFINED", "STRING"))


#: The counts that the container's promise is about. ``AUTOCOMPRESS_PACKING_EXAMPLES=10`` multiplies
#: them.
_TIMES = max(1, int(os.environ.get("AUTOCOMPRESS_PACKING_EXAMPLES", "1")))
RANDOM_MODELS, CORRUPTED, RANDOM_TENSORS = 200 * _TIMES, 500 * _TIMES, 8 * _TIMES


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
    st.lists(
        st.tuples(
            st.sampled_from(TYPES),
            st.binary(max_size=200) | st.integers(1, 40).map(lambda n: bytes(range(50)) * n),
        ),
        max_size=8,
    ),
)
@settings(max_examples=RANDOM_MODELS, deadline=None)
def test_any_model_comes_back_bit_by_bit(tensors: list[tuple[int, bytes]]) -> None:
    data = _model(tensors)
    assert unpack_bytes(pack_bytes(data)) == data


@pytest.mark.parametrize("kind", TYPES, ids=TensorProto.DataType.Name)
@given(
    columns=st.integers(1, 64),
    rows=st.integers(1, 48),
    values=st.sampled_from((2, 3, 16, 200, 1 << 62)),
    zeros=st.sampled_from((0.0, 0.5, 0.95)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=RANDOM_TENSORS, deadline=None)
def test_weights_of_every_type_come_back_bit_by_bit(
    kind: int, columns: int, rows: int, values: int, zeros: float, seed: int
) -> None:
    """Long and short tensors, their bytes drawn as codes, as few values, as anything."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, values, (rows, columns)).astype("<u8")
    words[rng.random(words.shape) < zeros] = 0
    raw = words.tobytes() if values > 200 else words.astype(np.uint8).tobytes()
    graph = helper.make_graph([], "g", [], [])
    graph.initializer.append(
        TensorProto(name="w", data_type=kind, raw_data=raw, dims=[rows, columns])
    )
    data = bytes(helper.make_model(graph).SerializeToString())
    assert unpack_bytes(pack_bytes(data)) == data


FORMS = st.builds(
    lambda kind, columns: {"bits": kind[0], "width": kind[1], "columns": columns},
    st.sampled_from(((8, 1), (4, 1), (2, 1), (8, 2), (8, 4), (8, 8))),
    st.sampled_from((0, 1, 9, 64)),
)
#: Much like weights: mostly zeros, a few values, anything.
CONTENT = st.one_of(
    st.binary(max_size=600),
    st.lists(st.sampled_from((0, 0, 0, 0, 1, 255, 16)), max_size=900).map(bytes),
    st.lists(st.sampled_from((bytes(4), bytes(4), b"abcd", b"\0\0\x80\x3f")), max_size=200).map(
        b"".join
    ),
)


@given(CONTENT, FORMS)
@settings(max_examples=300, deadline=None)
def test_every_codec_gives_back_what_it_took(data: bytes, settings: dict[str, int]) -> None:
    reading = Reading(len(data), **settings)
    for codec in (*CODECS, FineAdaptive()):
        coded = codec.encode(data, reading, 1 << 30)
        if coded is not None:
            assert codec.decode(coded, reading) == data, type(codec).__name__
    coded = encode_stream(data, reading)
    assert decode_stream(coded, reading) == data
    assert len(coded) <= len(data) + 1


@given(st.binary(max_size=300), FORMS, st.integers(0, 400), st.sampled_from(range(13)))
@settings(max_examples=800, deadline=None)
def test_no_stream_makes_a_codec_fail_but_with_an_error(
    coded: bytes, settings: dict[str, int], length: int, number: int
) -> None:
    reading = Reading(length, **settings)
    with contextlib.suppress(StorageError):
        assert len(decode_stream(bytes([number]) + coded, reading)) == length


@given(st.integers(0, 5_000_000), st.sampled_from((FINE, COARSE)))
def test_blocks_cover_everything_once(count: int, pace: Pace) -> None:
    found = list(blocks(count, pace))
    assert [start for start, _ in found] == [0, *(end for _, end in found[:-1])][: len(found)]
    assert (found[-1][1] if found else 0) == count


@given(st.integers(1, 65535))
def test_eight_equal_bits_are_as_likely_everywhere(density: int) -> None:
    """Products of doubles two by two, in an order that the format fixes."""
    bit = [1.0 - density / 65536, density / 65536]
    two = [a * b for a in bit for b in bit]
    four = [a * b for a in two for b in two]
    assert _eight(density / 65536).tolist() == [a * b for a in four for b in four]


@given(st.integers(0, 1), st.integers(0, 255), st.integers(0, 11), st.sampled_from((2, 4, 8)))
def test_priors_give_every_symbol_a_chance(
    normal: int, centre: int, spread: int, bits: int
) -> None:
    centre %= 1 << bits
    weights = Prior(normal, centre, spread, 0).weights(bits)
    assert weights.min() >= 1
    assert weights.argmax() == centre
    assert 900_000 < weights.sum() < 1_100_000


def test_a_prior_is_the_same_everywhere() -> None:
    # written down: files packed by one release are unpacked by the next, on any machine
    assert Prior(0, 2, 5, 0).weights(2).tolist() == [201000, 258090, 331394, 258090]
    assert Prior(1, 1, 6, 0).weights(4).tolist() == [
        92224,
        94087,
        92224,
        86853,
        78588,
        68321,
        57066,
        45797,
        35311,
        26159,
        35311,
        45797,
        57066,
        68321,
        78588,
        86853,
    ]


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


def _entropy_bytes(codes: npt.NDArray[np.int8]) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("family", ["laplace", "normal"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_come_within_2_percent_of_their_entropy(
    bits: int, family: str, zeros: float
) -> None:
    """Codes of weights, one scale per row, with at least 10 kB of information."""
    rng = np.random.default_rng(bits)
    levels = 2 ** (bits - 1) - 1
    rows = {0.0: 64, 0.5: 128, 0.9: 512}[zeros] * 8 // bits
    weights = getattr(rng, family)(0, 1, (rows, 256))
    weights[rng.random(weights.shape) < zeros] = 0
    codes = np.round(weights / abs(weights).max(1, keepdims=True) * levels).astype(np.int8)
    data = pack_codes(codes, bits)
    coded = encode_stream(data, Reading(len(data), bits=bits, columns=256))
    assert len(coded) <= 1.02 * _entropy_bytes(codes) + 4


def _gathered(bits: int, rows: int = 256, seed: int = 0) -> tuple[bytes, Reading]:
    """Codes whose zeros gather in rows and columns of 512."""
    rng = np.random.default_rng(seed)
    likely = rng.beta(0.2, 1.5, 512)[None, :] * rng.choice([0.1, 1.0, 2.0], (rows, 1))
    codes = np.where(
        rng.random((rows, 512)) < likely, rng.integers(1, min(8, 2**bits), (rows, 512)), 0
    )
    data = pack_codes(codes.astype(np.int8), bits)
    return data, Reading(len(data), bits=bits, columns=512)


def _long(kind: str) -> tuple[bytes, Reading, tuple[int, ...]]:
    """A long tensor, how to read it, and the codecs that read such in time."""
    rng = np.random.default_rng(0)
    if kind.startswith("gathered"):
        return (*_gathered(int(kind[-1])), (10, 12))
    if kind.endswith("floats"):
        floats = rng.standard_normal((64, 512)).astype(np.float32)
        if kind == "sparse floats":
            floats[rng.random(floats.shape) < 0.9] = 0
            return floats.tobytes(), Reading(floats.nbytes, width=4, columns=512), (10,)
        return floats.tobytes(), Reading(floats.nbytes, width=4, columns=512), (6,)
    if kind == "few values":
        data = rng.choice(np.array([0, 3, 250, 200, 7], np.uint8), 65536).tobytes()
        return data, Reading(len(data), columns=512), (12,)
    bits, zeros = int(kind[3]), 0.8 if kind.endswith("zeros") else 0.0
    levels = 2 ** (bits - 1) - 1
    drawn = np.clip(np.round(rng.laplace(0, levels / 3, 524288 // bits)), -levels, levels)
    codes = np.where(rng.random(len(drawn)) < zeros, 0, drawn).astype(np.int8)
    data = pack_codes(codes, bits)
    return data, Reading(len(data), bits=bits, columns=512), ((9,) if zeros else (8, 9))


LONG = [
    "int8",
    "int4",
    "int2",
    "int8 zeros",
    "int4 zeros",
    "int2 zeros",
    "gathered 8",
    "gathered 4",
]
LONG += ["floats", "sparse floats", "few values"]


@pytest.mark.parametrize("kind", LONG)
def test_long_tensors_are_written_so_that_they_are_read_in_time(kind: str) -> None:
    data, reading, quick = _long(kind)
    coded = encode_stream(data, reading)
    assert coded[0] in quick
    assert decode_stream(coded, reading) == data
    shortest = min(
        len(c) for codec in CODECS if (c := codec.encode(data, reading, 1 << 30)) is not None
    )
    assert len(coded) <= 1 + shortest * 66 / 64


@pytest.mark.parametrize("kind", LONG)
def test_damaged_streams_fail_with_an_error_or_are_as_long_as_they_should(kind: str) -> None:
    data, reading, _ = _long(kind)
    coded = encode_stream(data, reading)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(coded)
        damaged[rng.integers(min(len(damaged), 400))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(StorageError):
            assert len(decode_stream(bytes(damaged), reading)) == len(data)
    for end in rng.integers(0, len(coded), 20):
        with contextlib.suppress(StorageError):  # its last bytes may have been zeros
            assert len(decode_stream(coded[:end], reading)) == len(data)


@given(st.integers(0, 3), st.integers(1, 40), st.sampled_from((8, 4, 2)), st.data())
@settings(max_examples=100, deadline=None)
def test_runs_of_any_length_come_back(
    start: int, count: int, bits: int, data: st.DataObject
) -> None:
    longest = data.draw(st.sampled_from((3, 16, 64, 256, 1024)))
    lengths = data.draw(st.lists(st.integers(0, longest), min_size=count, max_size=count))
    codes = np.concatenate([[start, *[0] * length] for length in lengths])
    codes = np.pad(codes, (0, -len(codes) % (8 // bits))).astype(np.int8)
    packed = pack_codes(codes, bits)
    reading = Reading(len(packed), bits=bits)
    runs = next(codec for codec in CODECS if codec.number == 9)
    coded = runs.encode(packed, reading, 1 << 30)
    assert coded is None or runs.decode(coded, reading) == packed


def test_zeros_that_gather_in_columns_and_rows_cost_less_than_entropy() -> None:
    data, reading = _gathered(8)
    entropy = _entropy_bytes(np.frombuffer(data, np.int8))
    assert len(encode_stream(data, reading)) < 0.8 * entropy
    assert len(encode_stream(data, Reading(len(data)))) > 0.95 * entropy


@pytest.mark.parametrize("width", [2, 4, 8])
def test_shared_weights_cost_what_their_indices_cost(width: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(1, 1 << 60, 16).astype("<u8").view(np.uint8).reshape(16, 8)[:, :width]
    indices = rng.integers(0, 16, 40_000)
    data = table[indices].tobytes()
    coded = encode_stream(data, Reading(len(data), width=width))
    assert len(coded) <= 1.01 * 20_000 + 16 * width


def test_floats_with_many_zeros_keep_only_the_others() -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal(20_000).astype(np.float32)
    sparse = np.where(rng.random(20_000) < 0.9, np.float32(0), dense)
    sizes = [len(encode_stream(a.tobytes(), Reading(80_000, width=4))) for a in (dense, sparse)]
    assert sizes[0] < 0.9 * 80_000
    assert sizes[1] < 0.1 * sizes[0] + 0.5 * 20_000 / 8


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


def _flipped(packed: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(packed)
    for at in rng.choice(len(packed), size=rng.integers(1, 4), replace=False):
        damaged[at] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _cut(packed: bytes, rng: np.random.Generator) -> bytes:
    return packed[: rng.integers(len(packed))]


def _lengthened(packed: bytes, rng: np.random.Generator) -> bytes:
    return packed + rng.bytes(int(rng.integers(1, 9)))


def _swapped(packed: bytes, rng: np.random.Generator) -> bytes:
    """Two parts of the file in each other's place."""
    first, second = sorted(rng.choice(len(packed) // 8, size=2, replace=False) * 8)
    damaged = bytearray(packed)
    damaged[first : first + 8], damaged[second : second + 8] = (
        packed[second : second + 8], packed[first : first + 8],
    )  # fmt: skip
    return bytes(damaged)


def _overwritten(packed: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(packed))), int(rng.integers(1, 600))
    return packed[:start] + bytes(len(packed[start : start + length])) + packed[start + length :]


DAMAGES = (_flipped, _cut, _lengthened, _swapped, _overwritten)


def test_corrupted_containers_are_all_refused() -> None:
    """500 of them, different from what was packed, in five ways of several models."""
    models = [
        [(TensorProto.INT4, _quantised(4, size=4096))],
        [(TensorProto.INT8, _quantised(8)), (TensorProto.FLOAT, bytes(range(256)) * 12)],
        [(kind, bytes(range(200))) for kind in TYPES],
    ]
    packed = [pack_bytes(_model(tensors)) for tensors in models]
    rng = np.random.default_rng(0)
    refused = 0
    while refused < CORRUPTED:
        whole = packed[refused % len(packed)]
        damaged = DAMAGES[refused % len(DAMAGES)](whole, rng)
        if damaged != whole:
            with pytest.raises(StorageError):
                unpack_bytes(damaged)
            refused += 1
    with pytest.raises(StorageError, match="damaged or truncated"):
        unpack_bytes(packed[0] + b"x")


def _sealed(body: bytes) -> bytes:
    """A container whose checksum is right, whatever it holds."""
    return b"ACZ2" + zlib.crc32(body).to_bytes(4, "little") + body


def test_damage_under_a_right_checksum_restores_nothing_else() -> None:
    data = _model([(TensorProto.INT4, _quantised(4, size=4096)), (TensorProto.FLOAT, bytes(2048))])
    packed = pack_bytes(data)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        body = bytearray(packed[8:])
        body[rng.integers(len(body))] ^= 1 << int(rng.integers(8))
        try:
            assert unpack_bytes(_sealed(bytes(body))) == data  # a bit that pads a stream
        except StorageError:
            refused += 1
    assert refused >= 295


def _container(
    length: int, pieces: list[tuple[int, int, int, int]], streams: list[bytes], **claimed: int
) -> bytes:
    """A container field by field, its checksum right, its content whatever one likes."""
    layout = b"".join(varint(n) for piece in pieces for n in piece)
    numbers = (
        varint(length)
        + varint(claimed.get("count", len(pieces)))
        + varint(claimed.get("layout", len(layout)))
    )
    coded = [b"\0" + layout, *streams]
    return _sealed(bytes(32) + numbers + b"".join(varint(len(s)) + s for s in coded))


PRIOR = bytes([0, 200, 0, 0, 0])


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(_container(0, [], [], layout=1 << 31), id="layout-bomb"),
        pytest.param(_container(1 << 31, [], [], count=1 << 26, layout=1 << 29), id="count-bomb"),
        pytest.param(_container(64, [(0, 0, 0, 0)] * 4, [b"\0"]), id="empty-tensors"),
        pytest.param(_container(1 << 31, [], []), id="nothing-behind-it"),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\3" + PRIOR]), id="centre-of-4-bits"
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\4\0" + bytes(3) + PRIOR]),
            id="centre-of-sparse-4-bits",
        ),
        pytest.param(
            _container(1024, [(0, 0, 1024, 1 << 40)], [b"\0", b"\4"]), id="columns-beyond-memory"
        ),
        pytest.param(
            _container(1 << 22, [(0, 0, 1 << 22, 1)], [b"\0", b"\4"]), id="a-row-per-byte"
        ),
        pytest.param(
            _container(1024, [(4, 0, 1024, 0)], [b"\0", b"\7" + b"\0\0\xff\xff\7" * 99]),
            id="nested",
        ),
        pytest.param(
            _container(1024, [(0, 0, 1024, 0)], [b"\0", b"\x09\0" + varint(1 << 40) + bytes(9)]),
            id="more-runs-than-codes",
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\x09\0\x09\x0a\0" + b"\xf0" * 9]),
            id="runs-beyond-the-end",
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\x09\0\x09\x0a\0" + bytes(9)]),
            id="runs-that-end-too-early",
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\x09\0\x09\x7f" * 99]), id="nested-runs"
        ),
        pytest.param(
            _container(1 << 31, [(2, 0, 1 << 31, 8)], [b"\0", b"\x0a\0" + bytes(9)]),
            id="rows-beyond-memory",
        ),
        pytest.param(
            _container(1024, [(0, 0, 1024, 512)], [b"\0", b"\x0a\0\3\0\0\x10" + bytes(9)]),
            id="a-level-too-high",
        ),
        pytest.param(
            _container(1024, [(0, 0, 1024, 0)], [b"\0", b"\x0a\0\x0a" * 99]), id="groups-of-no-rows"
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\x0c\2\x10\x20\0" + bytes(512)]),
            id="values-wider-than-codes",
        ),
        pytest.param(
            _container(1024, [(1, 0, 1024, 0)], [b"\0", b"\x0c\2\1\2\0" + b"\xff" * 512]),
            id="a-value-that-is-not-there",
        ),
        pytest.param(
            _container(1024, [(0, 0, 1024, 0)], [b"\0", b"\x0c\1\1" * 99]), id="nested-values"
        ),
        pytest.param(
            _container(1024, [(9, 0, 1024, 0)], [b"\0", b"\0" + bytes(1024)]), id="no-such-element"
        ),
        pytest.param(_container(64, [(0, 90, 64, 0)], [b"\0"]), id="gap-outside-the-file"),
    ],
)
def test_hostile_containers_are_refused_at_once(hostile: bytes) -> None:
    with pytest.raises(StorageError):
        unpack_bytes(hostile)


#: Streams of a few bytes that stand for 2^28 codes in 64 MiB, and ask for more to unfold them.
_NOTHING = b"\x0b" + bytes([0, 0, 0, 0, 0])  # adaptive: whatever number of zeros


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x09\0" + varint(9) + varint(6) + _NOTHING, id="runs-too-few"),
        pytest.param(b"\x09\0" + varint(1 << 27) + varint(6) + _NOTHING, id="runs-many"),
        pytest.param(
            b"\x0a\0" + (varint(6) + _NOTHING) * 2 + varint(2) + b"\1\0" + varint(6) + _NOTHING,
            id="groups",
        ),
        pytest.param(b"\x04\0" + bytes(3) + bytes(5), id="a-mask-of-nothing"),
        pytest.param(b"\x0c\3\0\1\2" + _NOTHING, id="values-of-nothing"),
    ],
)
def test_few_bytes_do_not_claim_all_memory(stream: bytes) -> None:
    hostile = _container(1 << 26, [(2, 0, 1 << 26, 1 << 14)], [b"\0", stream])
    tracemalloc.start()
    try:
        with pytest.raises(StorageError):
            unpack_bytes(hostile)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("element", [0, 1, 2])
@pytest.mark.parametrize("stream", [_NOTHING, b"\x04\0" + bytes(8), b"\x0c\3\0\1\2" + _NOTHING])
def test_a_small_container_does_not_claim_gigabytes(element: int, stream: bytes) -> None:
    hostile = _container(1 << 31, [(element, 0, 1 << 31, 0)], [b"\0", stream])
    tracemalloc.start()
    try:
        with pytest.raises(StorageError, match="so few bytes do not hold"):
            unpack_bytes(hostile)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("columns", [0, 1 << 24])
def test_what_may_be_unfolded_takes_little_more_than_it_holds(columns: int) -> None:
    """The most that codec 4 makes out of nothing: 2^24 codes, in one row or with no rows."""
    hostile = _container(
        1 << 24, [(0, 0, 1 << 24, columns)], [b"\0", b"\x04\0" + bytes(3) + bytes(5)]
    )
    tracemalloc.start()
    try:
        with pytest.raises(StorageError):
            unpack_bytes(hostile)
        assert tracemalloc.get_traced_memory()[1] < 1 << 29
    finally:
        tracemalloc.stop()


def test_a_model_of_next_to_nothing_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _model([(TensorProto.INT8, bytes(1 << 20))])
    packed = pack_bytes(data)
    assert unpack_bytes(packed) == data
    monkeypatch.setattr(container, "_FREE", 1 << 10)
    with pytest.raises(RequestError, match="say next to nothing"):
        pack_bytes(data)
    with pytest.raises(StorageError, match="so few bytes do not hold"):
        unpack_bytes(packed)


def test_a_long_tensor_of_nothing_is_still_packed_and_comes_back() -> None:
    reading = Reading((1 << 23) + (1 << 18), 4, columns=1 << 13)
    data = bytes(reading.length)
    for codec in (c for c in CODECS if c.number in (9, 10, 12)):
        assert codec.encode(data, reading, len(data)) is None
    coded = encode_stream(data, reading)
    assert len(coded) < 64
    assert decode_stream(coded, reading) == data


def test_formats_stay_what_they_are() -> None:
    """What was packed by an earlier release is unpacked by this one, whatever libraries it has."""
    assert hashlib.sha256(DICTIONARY).hexdigest()[:16] == "86aa597875b24f6d"
    for name, digest, tensors in (
        ("golden.acz", "e60d10ab80489492", 8),
        ("golden_quick.acz", "52b9ba71b53462c1", 7),  # codecs from 8 on
    ):
        restored = unpack_bytes((Path(__file__).parent / name).read_bytes())
        assert hashlib.sha256(restored).hexdigest()[:16] == digest
        assert len(onnx.load_model_from_string(restored).graph.initializer) == tensors


def test_tensors_in_no_order_and_in_branches(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.arange(99.0)))],
        "then", [], [helper.make_tensor_value_info("c", TensorProto.DOUBLE, None)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(np.arange(640, dtype=np.int8).reshape(64, 10), "w")],
    )
    data = bytes(helper.make_model(graph).SerializeToString())
    assert unpack_bytes(pack_bytes(data)) == data
    inner = branch.node[0].attribute[0].t
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="elsewhere.bin")
    graph.node[0].attribute[0].g.CopyFrom(branch)
    with pytest.raises(RequestError, match="another file"):
        pack_bytes(bytes(helper.make_model(graph).SerializeToString()))


@pytest.mark.parametrize("dims", [[2, 1 << 40], [2, 8], [4096], [4096, 1], [1, 4096], [64, 64]])
def test_shapes_that_do_not_fit_their_bytes_do_no_harm(dims: list[int]) -> None:
    graph = helper.make_graph([], "g", [], [])
    for kind in (TensorProto.INT8, TensorProto.FLOAT, TensorProto.INT4, TensorProto.COMPLEX128):
        graph.initializer.append(
            TensorProto(name="t", data_type=kind, raw_data=bytes(4096), dims=dims)
        )
    data = bytes(helper.make_model(graph).SerializeToString())
    assert unpack_bytes(pack_bytes(data)) == data


def test_nothing_is_written_over_what_is_read_or_when_it_fails(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(_model([(TensorProto.INT8, _quantised(8))]))
    packed = pack(source)
    with pytest.raises(RequestError, match="name another file"):
        pack(source, source)
    with pytest.raises(RequestError, match="name another file"):
        unpack(packed, packed)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(StorageError):
        unpack(packed, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


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
        unpack_bytes(_sealed(data))
    with pytest.raises(StorageError, match="version"):
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
