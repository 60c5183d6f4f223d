"""Which tensors are quantised and how much memory is live, for many candidates at once.

The rules are those of :func:`autocompress.graph.precision.quantized_tensors` and
:func:`autocompress.hardware.memory.lifetimes`, written for arrays: a row a slot (an
operation by name, in execution order), a column a candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.graph.ops import FUSED_TAILS, INTEGER_KINDS, LAYER_KINDS, PASS_THROUGH, Op
from autocompress.hardware.influence import Ints
from autocompress.hardware.memory import ACTIVATION, ADD, IN_PLACE, VIEW, VIEWS
from autocompress.hardware.memory_model import USUAL, MemoryModel

Bools = npt.NDArray[np.bool_]

_FUSABLE = INTEGER_KINDS | LAYER_KINDS


@dataclass(frozen=True, slots=True)
class Flags:
    """What the rules ask of an operation; index 0 of each array is "absent"."""

    inputs: Ints
    integer: Bools
    fusable: Bools
    tail: Bools
    through: Bools
    merges: Bools
    output: Bools
    view: Bools
    in_place: Bools
    adds: Bools
    elements: Ints


def flags_of(ops: Sequence[Op | None], places: Mapping[str, int]) -> Flags:
    """The flags of a slot's known operations (None is "absent")."""
    width = max((len(op.inputs) for op in ops if op is not None), default=0)
    inputs = np.full((len(ops), max(1, width)), -1, dtype=np.int64)
    for row, op in enumerate(ops):
        if op is not None:
            inputs[row, : len(op.inputs)] = [places[name] for name in op.inputs]

    def flag(kinds: frozenset[str]) -> Bools:
        return np.array([op is not None and op.kind in kinds for op in ops])

    return Flags(
        inputs=inputs,
        integer=np.array([op is not None and op.is_integer_layer for op in ops]),
        fusable=flag(_FUSABLE),
        tail=flag(FUSED_TAILS),
        through=flag(PASS_THROUGH),
        merges=flag(PASS_THROUGH | INTEGER_KINDS),
        output=flag(frozenset({"output"})),
        view=flag(VIEWS),
        in_place=np.array(
            [op is not None and op.kind in IN_PLACE and len(op.inputs) == 1 for op in ops]
        ),
        adds=flag(frozenset({"add"})),
        elements=np.array(
            [0 if op is None or op.is_folded else prod(op.shape) for op in ops], dtype=np.int64
        ),
    )


class Wiring:
    """The rules, applied to a batch.

    Args:
        flags: of each slot, in execution order.
        chosen: for each slot and candidate, which of the slot's operations it is; 0 is absent.
    """

    def __init__(self, flags: Sequence[Flags], chosen: Ints) -> None:
        self._flags = flags
        self._chosen = chosen
        self._all = np.arange(chosen.shape[1])
        self._inputs = [self._inputs_of(slot) for slot in range(len(flags))]
        self._follow()

    def _pick(self, slot: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = values[self._chosen[slot]]
        return found

    def _inputs_of(self, slot: int) -> list[tuple[Ints | int, Bools | bool]]:
        """Producers by position, and where there is one; plain numbers where all agree."""
        found: list[tuple[Ints | int, Bools | bool]] = []
        table = self._flags[slot].inputs
        for position in range(table.shape[1]):
            values = np.unique(table[1:, position])
            present = self._chosen[slot] > 0
            if len(values) == 1:
                if values[0] >= 0:
                    found.append((int(values[0]), True if present.all() else present))
                continue
            column = table[self._chosen[slot], position]
            found.append((column, column >= 0))
        return found

    def _get(self, matrix: npt.NDArray[Any], at: Ints | int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = matrix[at] if isinstance(at, int) else matrix[at, self._all]
        return found

    def _single(self, values: Ints) -> Ints | int:
        """One number where all are equal."""
        first = int(values[0])
        return first if (values == first).all() else values

    def _mark(self, matrix: Bools, at: Ints | int, where: Bools) -> None:
        if isinstance(at, int):
            matrix[at] |= where
        else:
            columns = np.flatnonzero(where)
            matrix[at[columns], columns] = True

    def _follow(self) -> None:
        """Count the readers of each tensor, and find each fused tail."""
        slots, count = self._chosen.shape
        self._uses = np.zeros((slots + 1, count), dtype=np.int16)
        self._reader = np.full((slots + 1, count), -1, dtype=np.int64)
        self._final = np.zeros((slots + 1, count), dtype=bool)
        for slot, flags in enumerate(self._flags):
            output = bool(flags.output.any())
            for at, present in self._inputs[slot]:
                where = np.broadcast_to(np.asarray(present), (count,))
                if isinstance(at, int):
                    self._uses[at] += where
                    np.copyto(self._reader[at], slot, where=where)
                    if output:
                        self._final[at] |= where
                else:
                    columns = np.flatnonzero(where)
                    self._uses[at[columns], columns] += 1
                    self._reader[at[columns], columns] = slot
                    if output:
                        self._final[at[columns], columns] = True
        is_tail = np.stack([self._pick(s, f.tail) for s, f in enumerate(self._flags)])
        self.tails = np.empty((slots, count), dtype=np.int64)
        for slot, flags in enumerate(self._flags):
            self.tails[slot] = slot
            if flags.fusable.any():
                reader = self._reader[slot]
                fused = self._pick(slot, flags.fusable) & (self._uses[slot] == 1)
                fused &= is_tail[reader, self._all]
                np.copyto(self.tails[slot], reader, where=fused.astype(bool))

    def quantized(self) -> Bools:
        """Which slots' outputs are stored as uint8, shape ``(slots, candidates)``."""
        slots, count = self._chosen.shape
        marked = np.zeros((slots, count), dtype=bool)
        for slot, flags in enumerate(self._flags):
            if flags.integer.any():
                where = self._pick(slot, flags.integer).astype(bool)
                self._mark(marked, self._inputs[slot][0][0], where)
        for slot in range(slots - 1, -1, -1):
            if self._flags[slot].through.any():
                where = self._pick(slot, self._flags[slot].through) & marked[slot]
                self._mark(marked, self._inputs[slot][0][0], where.astype(bool))
        for slot, flags in enumerate(self._flags):
            where = np.zeros(count, dtype=bool)
            if flags.integer.any():
                where |= self._pick(slot, flags.integer).astype(bool)
            if flags.merges.any():
                whole = self._pick(slot, flags.merges).astype(bool)
                for at, present in self._inputs[slot]:
                    whole &= self._get(marked, at).astype(bool) | ~np.asarray(present)
                where |= whole
            if where.any():
                end = self.tails[slot]
                where &= ~self._final[end, self._all]
                self._mark(marked, end, where)
        return marked

    def peak_memory(self, quantized: Bools, model: MemoryModel = USUAL) -> npt.NDArray[np.float64]:
        """Bytes that activations need at their peak, shape ``(candidates,)``."""
        slots, count = self._chosen.shape
        first = np.broadcast_to(np.arange(slots, dtype=np.int64)[:, None], (slots, count))
        owner = first.copy()
        held = np.zeros((slots, count), dtype=np.int64)
        last = np.zeros((slots, count), dtype=np.int64)
        for slot, flags in enumerate(self._flags):
            for shares, at in self._shared(slot, model.in_place):
                np.copyto(owner[slot], self._get(owner, at), where=shares)
            size = self._pick(slot, flags.elements) * np.where(quantized[slot], 1, 4)
            if flags.fusable.any():
                size *= self.tails[slot] == slot
            root = self._single(owner[slot])
            if isinstance(root, int):
                np.maximum(held[root], size, out=held[root])
            else:
                held[root, self._all] = np.maximum(held[root, self._all], size)
            present = self._chosen[slot] > 0
            everywhere = bool(present.all())
            for at, there in ((slot, present), *self._inputs[slot]):
                whose = self._single(self._get(owner, at))
                itself = isinstance(at, int) and at == slot
                if everywhere and isinstance(whose, int) and (itself or there is True):
                    last[whose] = slot
                    continue
                columns = np.flatnonzero(np.broadcast_to(np.asarray(there), (count,)) & present)
                last[self._get(owner, at)[columns], columns] = slot
        return model.peaks(held, first, last).astype(np.float64)

    def _shared(self, slot: int, rules: Collection[str]) -> list[tuple[Bools, Ints | int]]:
        """Where a slot's result lies in the memory of an input; the last that holds counts."""
        flags = self._flags[slot]
        found: list[tuple[Bools, Ints | int]] = []
        if flags.adds.any() and ADD in rules:
            adds = self._pick(slot, flags.adds).astype(bool)
            for at, there in reversed(self._inputs[slot]):
                alone = self._get(self._uses, at) == 1
                found.append((adds & alone & np.asarray(there), at))
        renames = flags.output | flags.view if VIEW in rules else flags.output
        if renames.any():
            found.append((self._pick(slot, renames).astype(bool), self._inputs[slot][0][0]))
        if flags.in_place.any():
            at = self._inputs[slot][0][0]
            over = self._get(self._uses, at) == 1
            if ACTIVATION not in rules:
                over &= self._get(self.tails, at) == slot
            found.append((self._pick(slot, flags.in_place).astype(bool) & over, at))
        return found
