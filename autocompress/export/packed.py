"""The packed container: an ONNX file with its weights entropy-coded, restored bit by bit.

Layout of ``.acz``: magic ``ACZ1``, SHA-256 of the ONNX file, then variable-length integers: the
file's length, the number of tensors, and for each its kind, the gap before it and its length; then
for each stream its coded length; then the streams. One stream holds what lies between the tensors,
and there is one stream per tensor kind. Coding is LZMA2, from the standard library.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.core.files import write_atomically
from autocompress.errors import RequestError, StorageError
from autocompress.export.streams import (
    Kind,
    arrange,
    arranged_length,
    compress,
    decompress,
    restore,
)

SUFFIX = ".acz"
_MAGIC = b"ACZ1"
_HASH = 32
_SMALLEST = 16
#: No ONNX file is longer than protobuf allows.
_LARGEST = 1 << 31


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor's bytes within the file: its kind, the bytes before it, its length."""

    kind: Kind
    gap: int
    length: int


def pack(path: str | Path, output: str | Path | None = None) -> Path:
    """Write the packed form of an ONNX file beside it (``model.acz``) and check it.

    Args:
        path: an ONNX file without external data.
        output: where to write; None takes the file's name with ``.acz``.

    Returns:
        The packed file's path.

    Raises:
        RequestError: the file is no ONNX model, or keeps data outside itself.
        StorageError: it cannot be read or written.
    """
    source = Path(path)
    data = _read(source)
    target = source.with_suffix(SUFFIX) if output is None else Path(output)
    write_atomically(target, pack_bytes(data))
    if unpack_bytes(_read(target)) != data:
        raise StorageError(f"{target} does not restore {source}; the disk may be failing")
    return target


def unpack(path: str | Path, output: str | Path | None = None) -> Path:
    """Restore the ONNX file that :func:`pack` was given, bit by bit.

    Args:
        path: a packed file.
        output: where to write; None takes the file's name with ``.onnx``.

    Raises:
        StorageError: the file is damaged, truncated or no packed model.
    """
    source = Path(path)
    target = source.with_suffix(".onnx") if output is None else Path(output)
    write_atomically(target, unpack_bytes(_read(source)))
    return target


def packed_size(path: str | Path) -> int:
    """Bytes of the packed form: it is written, opened again and compared first."""
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        return pack(path, Path(folder) / f"model{SUFFIX}").stat().st_size


def pack_bytes(data: bytes) -> bytes:
    """The packed form of an ONNX file's bytes.

    Raises:
        RequestError: they are no ONNX model, or the model keeps data outside itself.
    """
    pieces = _locate(data)
    rest, streams, position = bytearray(), {kind: bytearray() for kind in Kind}, 0
    for piece in pieces:
        rest += data[position : position + piece.gap]
        position += piece.gap
        streams[piece.kind] += arrange(data[position : position + piece.length], piece.kind)
        position += piece.length
    rest += data[position:]
    streams[Kind.PLAIN] = rest + streams[Kind.PLAIN]
    coded = [compress(bytes(stream)) for stream in streams.values()]
    header = bytearray()
    for number in (len(data), len(pieces)):
        header += _varint(number)
    for piece in pieces:
        header += _varint(piece.kind) + _varint(piece.gap) + _varint(piece.length)
    for stream in coded:
        header += _varint(len(stream))
    return b"".join([_MAGIC, hashlib.sha256(data).digest(), bytes(header), *coded])


def unpack_bytes(packed: bytes) -> bytes:
    """Inverse of :func:`pack_bytes`.

    Raises:
        StorageError: the bytes are damaged, truncated or no packed model.
    """
    if packed[: len(_MAGIC)] != _MAGIC or len(packed) < len(_MAGIC) + _HASH:
        raise StorageError("this is no packed model (it does not start with ACZ1)")
    digest = packed[len(_MAGIC) : len(_MAGIC) + _HASH]
    try:
        data = _restored(packed, len(_MAGIC) + _HASH)
    except (ValueError, IndexError, OverflowError) as error:
        raise StorageError(f"the packed model is damaged: {error}") from error
    if hashlib.sha256(data).digest() != digest:
        raise StorageError("the packed model is damaged: its SHA-256 does not match")
    return data


def _restored(packed: bytes, at: int) -> bytes:
    length, at = _read_varint(packed, at)
    count, at = _read_varint(packed, at)
    if length > _LARGEST or count > len(packed):
        raise StorageError(f"the packed model claims {length} bytes in {count} tensors")
    pieces = []
    for _ in range(count):
        kind, at = _read_varint(packed, at)
        gap, at = _read_varint(packed, at)
        size, at = _read_varint(packed, at)
        pieces.append(_Piece(Kind(kind), gap, size))
    wanted = _stream_lengths(length, pieces)
    streams: dict[Kind, bytes] = {}
    sizes = []
    for _ in Kind:
        size, at = _read_varint(packed, at)
        sizes.append(size)
    for kind, size in zip(Kind, sizes, strict=True):
        streams[kind] = decompress(packed[at : at + size], wanted[kind])
        at += size
    if at != len(packed):
        raise StorageError("the packed model is truncated or has bytes behind its end")
    return _assemble(length, pieces, streams)


def _stream_lengths(length: int, pieces: Sequence[_Piece]) -> dict[Kind, int]:
    covered = sum(p.length for p in pieces)
    if covered + sum(p.gap for p in pieces) > length:
        raise StorageError("the packed model's tensors do not fit into the file they come from")
    lengths = dict.fromkeys(Kind, 0)
    lengths[Kind.PLAIN] = length - covered
    for piece in pieces:
        lengths[piece.kind] += arranged_length(piece.length, piece.kind)
    return lengths


def _assemble(length: int, pieces: Sequence[_Piece], streams: dict[Kind, bytes]) -> bytes:
    rest = streams[Kind.PLAIN][: length - sum(p.length for p in pieces)]
    taken = dict.fromkeys(Kind, 0)
    taken[Kind.PLAIN] = len(rest)
    data, position = bytearray(), 0
    for piece in pieces:
        data += rest[position : position + piece.gap]
        position += piece.gap
        size = arranged_length(piece.length, piece.kind)
        start = taken[piece.kind]
        data += restore(streams[piece.kind][start : start + size], piece.kind)
        taken[piece.kind] += size
    data += rest[position:]
    return bytes(data)


def _locate(data: bytes) -> list[_Piece]:
    """Where the tensors' raw bytes lie in the file, in order."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise RequestError(f"this is no ONNX model: {error}") from error
    pieces, position = [], 0
    for tensor in model.graph.initializer:
        if tensor.external_data:
            raise RequestError(
                f"tensor {tensor.name!r} is kept in another file; save the model in one file"
            )
        raw = tensor.raw_data
        if len(raw) < _SMALLEST:
            continue
        start = data.find(raw, position)
        if start < 0:
            continue  # out of order: it stays in the plain stream
        pieces.append(_Piece(_kind(tensor), start - position, len(raw)))
        position = start + len(raw)
    return pieces


def _kind(tensor: Any) -> Kind:
    from onnx import TensorProto

    kinds = {
        TensorProto.INT8: Kind.INT8,
        TensorProto.UINT8: Kind.INT8,
        TensorProto.INT4: Kind.INT4,
        TensorProto.UINT4: Kind.INT4,
        TensorProto.INT2: Kind.INT2,
        TensorProto.UINT2: Kind.INT2,
        TensorProto.FLOAT: Kind.WIDE4,
        TensorProto.INT32: Kind.WIDE4,
        TensorProto.FLOAT16: Kind.WIDE2,
        TensorProto.BFLOAT16: Kind.WIDE2,
    }
    return kinds.get(tensor.data_type, Kind.PLAIN)


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the high bit says that more follow."""
    coded = bytearray()
    while number > 127:
        coded.append(number & 127 | 128)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in _shifts():
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise StorageError("the packed model holds a number that is too long")


def _shifts() -> Iterator[int]:
    return iter(range(0, 63, 7))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
