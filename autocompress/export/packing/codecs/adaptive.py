"""Codes of 8, 4 or 2 bits at their entropy, by asymmetric numeral systems.

Coding is that of Bamler 2022 (constriction, arXiv:2201.01741; Duda 2009, arXiv:0902.0271).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from autocompress.export.packing.ans import Decoder, Encoder
from autocompress.export.packing.codecs.base import Codec, Reading
from autocompress.export.packing.numbers import Reader
from autocompress.export.packing.probabilities import (
    COARSE,
    FINE,
    PRIOR_BYTES,
    Pace,
    Prior,
    best_prior,
)


class Adaptive(Codec):
    """One adaptive model for all codes; those of one byte are coded in one step."""

    number = 11
    delay = 1
    pace: ClassVar[Pace] = COARSE

    def encode(self, data: bytes, reading: Reading, limit: int) -> bytes | None:
        """The prior, then the codes."""
        if reading.width > 1:
            return None
        symbols = np.frombuffer(data, np.uint8)
        prior, bits = best_prior(symbols, reading.bits, reading.units, self.pace)
        if bits / 8 > limit:
            return None
        encoder = Encoder()
        encoder.push_symbols(symbols, reading.bits, reading.units, prior, self.pace)
        return prior.to_bytes() + encoder.finish()

    def decode(self, coded: bytes, reading: Reading) -> bytes:
        """As many bytes as was said."""
        reader = Reader(coded)
        prior = Prior.from_bytes(reader.take(PRIOR_BYTES), reading.bits)
        decoder = Decoder(reader.rest())
        found = decoder.pop_symbols(reading.length, reading.bits, reading.units, prior, self.pace)
        decoder.finish()
        return found.tobytes()


class FineAdaptive(Adaptive):
    """The same with more blocks, as earlier releases wrote it."""

    number = 3
    pace = FINE
