"""Tensors of which most are zero: where the others are, then what they are."""

from __future__ import annotations

import numpy as np

from autocompress.errors import StorageError
from autocompress.export.packing.ans import Decoder, Encoder
from autocompress.export.packing.codecs.base import Codec, NestingCodec, Reading
from autocompress.export.packing.codecs.units import join_codes, too_dense, usual_code
from autocompress.export.packing.mask import WORTHWHILE, pop_mask, push_mask
from autocompress.export.packing.numbers import Reader, varint
from autocompress.export.packing.probabilities import FINE, PRIOR_BYTES, Prior, best_prior


class SparseCodes(Codec):
    """Codes of 8, 4 or 2 bits; the one that is left out is the most frequent."""

    number = 4
    delay = 2

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The code left out, mask and prior, then all of it; None where few are the same."""
        found = usual_code(data, reading)
        if found is None:
            return None
        codes, zero = found
        rows, columns = reading.grid
        padded = np.full(rows * columns, zero, np.uint8)
        padded[: len(codes)] = codes
        mask = padded != zero
        values = padded[mask]
        prior, _ = best_prior(values, reading.bits, 1, FINE)
        encoder = Encoder()
        encoder.push_symbols(values, reading.bits, 1, prior)
        head = push_mask(encoder, mask.reshape(rows, columns))
        whole = bytes([zero]) + head + prior.to_bytes() + encoder.finish()
        return None if too_dense(len(whole), reading) else whole

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        (zero,) = reader.take(1)
        head = reader.take(3)
        prior = Prior.from_bytes(reader.take(PRIOR_BYTES), reading.bits)
        if zero >= 1 << reading.bits or too_dense(len(coded), reading):
            raise StorageError("a packed stream's zero is damaged")
        decoder = Decoder(reader.rest())
        rows, columns = reading.grid
        places = np.flatnonzero(pop_mask(decoder, head, rows, columns))
        codes = np.full(rows * columns, zero, np.uint8)
        if len(places) and places[-1] >= reading.elements:
            raise StorageError("a packed stream's mask is damaged")
        codes[places] = decoder.pop_symbols(len(places), reading.bits, 1, prior)
        decoder.finish()
        return join_codes(codes[: reading.elements], reading)


class SparseNumbers(NestingCodec):
    """Numbers of several bytes; what is left out is zero."""

    number = 7
    delay = 2

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The mask's length, head and bytes, then the numbers; None where few are zero."""
        if reading.width == 1 or reading.length % reading.width or not data:
            return None
        elements = np.frombuffer(data, f"<u{reading.width}")
        mask = elements != 0
        if mask.sum() > (1.0 - WORTHWHILE) * len(mask):
            return None
        rows, columns = reading.grid
        padded = np.zeros(rows * columns, np.bool_)
        padded[: len(mask)] = mask
        encoder = Encoder()
        head = push_mask(encoder, padded.reshape(rows, columns))
        places = encoder.finish()
        left = elements[mask].tobytes()
        numbers = self._encode_stream(left, Reading(len(left), width=reading.width))
        return varint(len(places)) + head + places + numbers

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        if reading.width == 1 or reading.length % reading.width:
            raise StorageError("a packed stream's numbers are damaged")
        reader = Reader(coded)
        length = reader.number()
        head = reader.take(3)
        decoder = Decoder(reader.take(length))
        mask = pop_mask(decoder, head, *reading.grid).ravel()
        decoder.finish()
        if mask[reading.elements :].any():
            raise StorageError("a packed stream's mask is damaged")
        mask = mask[: reading.elements]
        size = int(mask.sum()) * reading.width
        coded_left = reader.rest()
        if coded_left[:1] == bytes([self.number]):
            raise StorageError("a packed stream leaves out zeros where there are none left")
        left = self._decode_stream(coded_left, Reading(size, width=reading.width))
        elements = np.zeros(reading.elements, f"<u{reading.width}")
        elements[mask] = np.frombuffer(left, f"<u{reading.width}")
        return elements.tobytes()
