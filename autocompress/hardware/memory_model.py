"""How a device's runtime lays out activations, and where weights are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from autocompress.graph.ops import Op
from autocompress.hardware.arena import Ints, greedy_arena
from autocompress.hardware.memory import RULES, USUAL_RULES, lifetimes
from autocompress.hardware.toml_section import Section

Planner: TypeAlias = Literal["liveness", "greedy_by_size"]


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """What activations need of a device's memory, and whether weights need it as well.

    Attributes:
        weights_in: "ram", or "flash" where they are read in place.
        planner: "liveness" takes the largest sum of what is live at once, which no layout can
            undercut; "greedy_by_size" the arena that TensorFlow Lite Micro's planner lays out.
        alignment: bytes to a multiple of which each block is rounded up.
        in_place: what needs no memory of its own, out of "view", "activation", "add".
        overhead_bytes: what the runtime takes of the same memory on top.
        block_overhead_bytes: the same for each block of activations.
    """

    weights_in: Literal["ram", "flash"] = "ram"
    planner: Planner = "liveness"
    alignment: int = 1
    in_place: tuple[str, ...] = USUAL_RULES
    overhead_bytes: int = 0
    block_overhead_bytes: int = 0

    def peak_bytes(self, ops: Sequence[Op], quantized: Collection[str]) -> int:
        """Bytes of memory that a candidate's activations need at their peak.

        Args:
            ops: the candidate's operations in execution order.
            quantized: names of those whose output is stored as 8-bit integers.
        """
        blocks = list(lifetimes(ops, quantized, self.in_place).values())
        rows = [[b.size_bytes, b.first, b.last] for b in blocks]
        size, first, last = np.array(rows, dtype=np.int64).reshape(-1, 3).T[:, :, None]
        return int(self.peaks(size, first, last)[0])

    def peaks(self, sizes: Ints, first: Ints, last: Ints) -> Ints:
        """The same for many candidates.

        Args:
            sizes: bytes of blocks, shape ``(blocks, candidates)``; 0 where there is none.
            first: steps at which they are first written.
            last: steps at which they are last read.

        Returns:
            Bytes, shape ``(candidates,)``.
        """
        if self.alignment > 1:
            sizes = -(-sizes // self.alignment) * self.alignment
        if self.planner == "greedy_by_size":
            peak = greedy_arena(sizes.T, first.T, last.T)
        else:
            peak = _largest_sum(sizes, first, last)
        if self.block_overhead_bytes:
            peak = peak + self.block_overhead_bytes * (sizes > 0).sum(axis=0)
        return np.asarray(peak + self.overhead_bytes, dtype=np.int64)

    def ram_bytes(self, peak_bytes: float, weight_bytes: float) -> float:
        """What a model needs of the working memory, given its activations' peak and its weights."""
        return peak_bytes + (weight_bytes if self.weights_in == "ram" else 0)

    def to_toml(self) -> dict[str, Any]:
        """The ``[memory]`` table."""
        return {
            "weights_in": self.weights_in,
            "planner": self.planner,
            "alignment": self.alignment,
            "in_place": list(self.in_place),
            "overhead_bytes": self.overhead_bytes,
            "block_overhead_bytes": self.block_overhead_bytes,
        }

    @classmethod
    def from_toml(cls, value: object) -> MemoryModel:
        """The model of a ``[memory]`` table.

        Raises:
            ProfileError: a key is unknown, or a figure cannot be.
        """
        section = Section(value, "memory")
        weights = section.text("weights_in", "ram", one_of=("ram", "flash"))
        planner = section.text("planner", "liveness", one_of=("liveness", "greedy_by_size"))
        made = cls(
            weights_in="flash" if weights == "flash" else "ram",
            planner="greedy_by_size" if planner == "greedy_by_size" else "liveness",
            alignment=section.whole("alignment", 1, above=0),
            in_place=section.texts("in_place", USUAL_RULES, among=RULES),
            overhead_bytes=section.whole("overhead_bytes", 0),
            block_overhead_bytes=section.whole("block_overhead_bytes", 0),
        )
        section.done()
        return made


#: Where a profile says nothing: what is live at once, activations in place, weights in memory.
USUAL = MemoryModel()


def _largest_sum(sizes: Ints, first: Ints, last: Ints) -> Ints:
    if not sizes.size:
        return np.zeros(sizes.shape[1], dtype=np.int64)
    begun, freed = np.zeros((2, int(last.max()) + 1, sizes.shape[1]), dtype=np.int64)
    for size, start, end in zip(sizes, first, last, strict=True):
        if size.any():
            _add(begun, start, size)
            _add(freed, end, size)
    live, peaks = np.zeros((2, sizes.shape[1]), dtype=np.int64)
    for more, less in zip(begun, freed, strict=True):
        live += more
        np.maximum(peaks, live, out=peaks)
        live -= less
    return peaks


def _add(change: Ints, step: Ints, size: Ints) -> None:
    """Add at a step a candidate; quickly where all have the same."""
    if (step == step[0]).all():
        change[step[0]] += size
    else:
        change[step, np.arange(len(size))] += size
