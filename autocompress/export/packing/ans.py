"""The entropy coder: a stack of symbols, so that what is pushed last is popped first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import StorageError
from autocompress.export.packing.probabilities import (
    FINE,
    AdaptiveModel,
    Pace,
    Prior,
    Symbols,
    blocks,
)

_Bits = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]


class Encoder:
    """Collects symbols; push the groups in the opposite order of that they are popped in."""

    def __init__(self) -> None:
        import constriction

        self._models = constriction.stream.model
        self._coder = constriction.stream.stack.AnsCoder()

    def push_symbols(
        self, symbols: Symbols, bits: int, units: int, prior: Prior, pace: Pace = FINE
    ) -> None:
        """Symbols under an adaptive model (see :class:`AdaptiveModel`)."""
        model = AdaptiveModel(bits, units, prior)
        tables = []
        for start, end in blocks(len(symbols), pace):
            tables.append((start, end, model.probabilities()))
            model.see(symbols[start:end])
        for start, end, table in reversed(tables):
            categorical = self._models.Categorical(table, perfect=False)
            self._coder.encode_reverse(symbols[start:end].astype(np.int32), categorical)

    def push_bits(self, bits: _Bits, probabilities: _Floats) -> None:
        """Bits, each with its own probability of being set; same shape."""
        model = self._models.Bernoulli(perfect=False)
        values = np.ascontiguousarray(bits.ravel(), dtype=np.int32)
        self._coder.encode_reverse(values, model, np.ascontiguousarray(probabilities.ravel()))

    def push_equal_bits(self, bits: _Bits, probability: float) -> None:
        """Bits that all have the same probability of being set, eight in a step; shape ``(n,)``."""
        model = self._models.Categorical(_eight(probability), perfect=False)
        packed = np.packbits(bits, bitorder="little").astype(np.int32)
        self._coder.encode_reverse(packed, model)

    def finish(self) -> bytes:
        """All of it as bytes."""
        words: npt.NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0")


class Decoder:
    """Gives the symbols back, in the opposite order of that they were pushed in.

    Raises:
        StorageError: the bytes are no coder's.
    """

    def __init__(self, coded: bytes) -> None:
        import constriction

        self._models = constriction.stream.model
        words = np.frombuffer(coded + bytes(-len(coded) % 4), "<u4").astype(np.uint32)
        try:
            self._coder: Any = constriction.stream.stack.AnsCoder(words)
        except ValueError as error:
            raise StorageError(f"a packed stream is damaged: {error}") from error

    def pop_symbols(
        self, count: int, bits: int, units: int, prior: Prior, pace: Pace = FINE
    ) -> Symbols:
        """``count`` symbols, shape ``(count,)``."""
        model = AdaptiveModel(bits, units, prior)
        found = np.empty(count, np.uint8)
        for start, end in blocks(count, pace):
            categorical = self._models.Categorical(model.probabilities(), perfect=False)
            found[start:end] = self._coder.decode(categorical, end - start)
            model.see(found[start:end])
        return found

    def pop_bits(self, probabilities: _Floats) -> _Bits:
        """One bit for each probability, shape ``(n,)``."""
        model = self._models.Bernoulli(perfect=False)
        found: npt.NDArray[np.int32] = self._coder.decode(model, probabilities)
        return found.astype(np.bool_)

    def pop_equal_bits(self, count: int, probability: float) -> _Bits:
        """``count`` bits that all have the same probability of being set."""
        model = self._models.Categorical(_eight(probability), perfect=False)
        packed = self._coder.decode(model, -(-count // 8)).astype(np.uint8)
        return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)

    def finish(self) -> None:
        """Nothing may be left.

        Raises:
            StorageError: there is.
        """
        if not self._coder.is_empty():
            raise StorageError("a packed stream has symbols behind its end")


def _eight(probability: float) -> _Floats:
    """Probabilities of every byte whose bits are set with the same probability."""
    bit = np.array([1.0 - probability, probability])
    two = np.outer(bit, bit).ravel()
    four = np.outer(two, two).ravel()
    eight: _Floats = np.outer(four, four).ravel()
    return eight
