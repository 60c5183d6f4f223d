"""The packed container: an ONNX file with its weights entropy-coded, restored bit by bit.

Layout of ``.acz``, version 2: magic ``ACZ2``; CRC-32 of all that follows, four bytes, lowest first;
SHA-256 of the ONNX file; then variable-length whole numbers and streams. The numbers: the file's
length, the number of tensors, the layout's length. The streams, each behind its coded length: the
layout (per tensor what its elements take, the bytes before it, its own, its columns); the bytes
that belong to no tensor; one stream for all short tensors of a kind, where there are any; one per
longer tensor, in the file's order. Each stream names the codec that wrote it (see ``codecs``).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from autocompress.core.files import replacing, write_atomically
from autocompress.errors import RequestError, StorageError
from autocompress.export.packing.codecs.base import Reading
from autocompress.export.packing.codecs.registry import decode_stream, encode_stream
from autocompress.export.packing.numbers import Reader, varint
from autocompress.export.packing.tensors import (
    SMALLEST,
    Element,
    Piece,
    locate,
    reading_of,
)

SUFFIX = ".acz"
_MAGIC = b"ACZ2"
_CRC, _HASH = 4, 32
#: Tensors of fewer bytes share a stream with others of their kind.
_SHORT = 1024
#: No ONNX file is longer than protobuf allows.
_LARGEST = 1 << 31
_CHUNK = 1 << 20
#: A container may stand for so many bytes whatever it takes, and so many more for each of its own:
#: coders make any number of the likeliest symbol out of nothing.
_FREE, _PER_BYTE = 1 << 26, 1 << 12
#: A tensor's entry in the layout is no longer: one number below 128, three of up to nine bytes.
_PIECE_BYTES = 28


def pack(path: str | Path, output: str | Path | None = None) -> Path:
    """Write the packed form of an ONNX file beside it (``model.acz``) and check it.

    Args:
        path: an ONNX file without external data.
        output: where to write; None takes the file's name with ``.acz``.

    Returns:
        The packed file's path.

    Raises:
        RequestError: the file is no ONNX model, keeps data outside itself, or is the output, too.
        StorageError: it cannot be read or written.
    """
    source = Path(path)
    data = _read(source)
    target = _another(source, output, SUFFIX)
    packed = pack_bytes(data)
    if unpack_bytes(packed) != data:
        raise StorageError(f"what was packed does not restore {source}; nothing is written")
    write_atomically(target, packed)
    if _read(target) != packed:
        raise StorageError(f"{target} does not hold what was written; the disk may be failing")
    return target


def unpack(path: str | Path, output: str | Path | None = None) -> Path:
    """Restore the ONNX file that :func:`pack` was given, bit by bit, tensor by tensor.

    The file has its name only once all of it is there and its SHA-256 is right.

    Args:
        path: a packed file.
        output: where to write; None takes the file's name with ``.onnx``.

    Raises:
        StorageError: the file is damaged, truncated or no packed model.
    """
    source = Path(path)
    target = _another(source, output, ".onnx")
    try:
        file = source.open("rb")
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error}") from error
    with file, replacing(target) as temporary, temporary.open("wb") as restored:
        for part in _unpacked(file):
            restored.write(part)
    return target


def packed_size(path: str | Path) -> int:
    """Bytes of the packed form: it is written, opened again and compared first."""
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        return pack(path, Path(folder) / f"model{SUFFIX}").stat().st_size


def pack_bytes(data: bytes) -> bytes:
    """The packed form of an ONNX file's bytes.

    Raises:
        RequestError: they are no ONNX model, or the model keeps data outside itself, or more than
            64 MB of it are of next to no content.
    """
    pieces = locate(data)
    rest, short, long, position = bytearray(), {e: bytearray() for e in Element}, [], 0
    for piece in pieces:
        rest += data[position : position + piece.gap]
        position += piece.gap
        content = data[position : position + piece.length]
        position += piece.length
        if piece.length < _SHORT:
            short[piece.element] += content
        else:
            long.append(encode_stream(content, _reading(piece)))
    rest += data[position:]
    layout = b"".join(
        varint(piece.element) + varint(piece.gap) + varint(piece.length) + varint(piece.columns)
        for piece in pieces
    )
    streams = [
        encode_stream(layout, Reading(len(layout))),
        encode_stream(bytes(rest), Reading(len(rest))),
    ]
    streams += [
        encode_stream(bytes(held), reading_of(element, len(held)))
        for element, held in short.items()
        if held
    ]
    numbers = varint(len(data)) + varint(len(pieces)) + varint(len(layout))
    body = b"".join(
        [hashlib.sha256(data).digest(), numbers, *(varint(len(s)) + s for s in streams + long)]
    )
    packed = _MAGIC + zlib.crc32(body).to_bytes(_CRC, "little") + body
    if _too_much(len(data), len(packed)):
        raise RequestError(
            f"the model's {len(data)} bytes say next to nothing: packed into {len(packed)}, no "
            "reader would tell them from an attack; leave the model as it is, or shorten it"
        )
    return packed


def unpack_bytes(packed: bytes) -> bytes:
    """Inverse of :func:`pack_bytes`.

    Raises:
        StorageError: the bytes are damaged, truncated or no packed model.
    """
    return b"".join(_unpacked(io.BytesIO(packed)))


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The ONNX file's bytes in order; the last of them only when its SHA-256 is right."""
    _check(file)
    digest = hashlib.sha256()
    expected = file.read(_HASH)
    last = b""
    for part in _parts(file):
        digest.update(part)
        yield last
        last = part
    if digest.digest() != expected:
        raise StorageError("the packed model is damaged: its SHA-256 does not match")
    yield last


def _check(file: BinaryIO) -> None:
    """Leave the file behind its CRC-32, which is right."""
    magic = file.read(len(_MAGIC))
    if magic[:3] != _MAGIC[:3]:
        raise StorageError("this is no packed model (it does not start with ACZ)")
    if magic != _MAGIC:
        raise StorageError(
            f"this packed model is of version {magic[3:]!r}; this release reads version 2"
        )
    expected = file.read(_CRC)
    crc = 0
    while chunk := file.read(_CHUNK):
        crc = zlib.crc32(chunk, crc)
    if crc.to_bytes(_CRC, "little") != expected:
        raise StorageError("the packed model is damaged or truncated: its CRC-32 does not match")
    file.seek(len(_MAGIC) + _CRC)


def _parts(file: BinaryIO) -> Iterator[bytes]:
    length, count, layout_length = (_number(file) for _ in range(3))
    claimed = f"the packed model claims {length} bytes in {count} tensors"
    if length > _LARGEST or count * SMALLEST > length or _too_much(length, _size(file)):
        raise StorageError(f"{claimed}, which so few bytes do not hold")
    if not 4 * count <= layout_length <= _PIECE_BYTES * count:
        raise StorageError(f"{claimed}, with a layout of {layout_length}")
    pieces = _pieces(_stream(file, Reading(layout_length)), count)
    covered = sum(piece.length for piece in pieces)
    rest_length = length - covered
    if sum(piece.gap for piece in pieces) > rest_length:
        raise StorageError("the packed model's tensors do not fit into the file they come from")
    rest = Reader(_stream(file, Reading(rest_length)))
    short = {
        element: Reader(_stream(file, reading_of(element, held)))
        for element in Element
        if (held := sum(p.length for p in pieces if p.element == element and p.length < _SHORT))
    }
    for piece in pieces:
        yield rest.take(piece.gap)
        if piece.length < _SHORT:
            yield short[piece.element].take(piece.length)
        else:
            yield _stream(file, _reading(piece))
    yield rest.rest()
    if file.read(1):
        raise StorageError("the packed model has bytes behind its end")


def _too_much(length: int, packed: int) -> bool:
    """Whether so many packed bytes stand for more than a reader makes room for."""
    return length > _FREE + _PER_BYTE * packed


def _size(file: BinaryIO) -> int:
    at = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(at)
    return size


def _pieces(layout: bytes, count: int) -> Sequence[Piece]:
    reader = Reader(layout)
    pieces = []
    for _ in range(count):
        element = reader.number()
        if element >= len(Element):
            raise StorageError("the packed model's layout is damaged")
        gap, length, columns = (reader.number() for _ in range(3))
        if length < SMALLEST:
            raise StorageError(f"the packed model claims a tensor of {length} bytes")
        pieces.append(Piece(Element(element), gap, length, columns))
    if not reader.done:
        raise StorageError("the packed model's layout has bytes behind its end")
    return pieces


def _reading(piece: Piece) -> Reading:
    return reading_of(piece.element, piece.length, piece.columns)


def _stream(file: BinaryIO, reading: Reading) -> bytes:
    length = _number(file)
    if length > _LARGEST:
        raise StorageError(f"the packed model claims a stream of {length} bytes")
    return decode_stream(_exactly(file, length), reading)


def _number(file: BinaryIO) -> int:
    coded = bytearray()
    while len(coded) < 10:
        coded += _exactly(file, 1)
        if coded[-1] < 128:
            break
    return Reader(bytes(coded)).number()


def _exactly(file: BinaryIO, count: int) -> bytes:
    if count > _size(file) - file.tell():  # before room is made for it
        raise StorageError("the packed model is truncated")
    return file.read(count)


def _another(source: Path, output: str | Path | None, suffix: str) -> Path:
    """Where to write; never over what is read."""
    target = source.with_suffix(suffix) if output is None else Path(output)
    if target.resolve() == source.resolve():
        raise RequestError(f"{target} is what is read; name another file to write")
    return target


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
