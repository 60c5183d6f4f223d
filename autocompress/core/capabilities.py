"""What a device can exploit: the part of a hardware profile that shapes a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Precision:
    """A pair of bit-widths and what it buys on a device.

    Attributes:
        weight_bits: bits per stored weight.
        activation_bits: bits of input and output activations.
        fast: whether the runtime computes in it; otherwise it only makes the file smaller.
    """

    weight_bits: int
    activation_bits: int
    fast: bool = True

    @property
    def name(self) -> str:
        """Such as "w8a8"; "fp32" for floats."""
        if self.weight_bits == self.activation_bits == 32:
            return "fp32"
        return f"w{self.weight_bits}a{self.activation_bits}"


FP32 = Precision(32, 32)
W8A8 = Precision(8, 8)

#: What ONNX Runtime on an x86 CPU with VNNI runs well: sub-byte weights are stored small and
#: computed as int8; weight-only forms are stored small and computed as float.
CPU_PRECISIONS = (FP32, W8A8, Precision(4, 8), Precision(2, 8), Precision(4, 32, fast=False))

#: Bits of weights that are stored in a wider form, and which: only a packed file is smaller.
_STORED_IN = {6: 8, 5: 8, 3: 4}


def with_storage_forms(precisions: Sequence[Precision]) -> tuple[Precision, ...]:
    """The same, and those that a device computes as it does these, but that pack smaller."""
    found = list(precisions)
    for bits, wider in _STORED_IN.items():
        for precision in precisions:
            narrow = Precision(bits, precision.activation_bits, fast=False)
            known = {p.name for p in found}
            if precision.weight_bits == wider and precision.fast and narrow.name not in known:
                found.append(narrow)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can exploit.

    Attributes:
        precisions: offered bit-width pairs, floats first.
        channel_step: channel counts that are multiples of it run well.
        rank_step: the same for ranks.
        sparsity_pays: whether unstructured zeros make anything faster.
        stores_packed: whether the entropy-coded size counts, so that zeros pay in bytes.
        sparsity_patterns: patterns of zeros that make something faster, such as "2:4" or
            "block:1x4".
        sparsity_speedup: by pattern with its share of zeros ("2:4", "block:1x4@0.7"), how many
            times faster a layer's multiplications are; what is not named is priced as dense.
    """

    precisions: tuple[Precision, ...] = CPU_PRECISIONS
    channel_step: int = 16
    rank_step: int = 16
    sparsity_pays: bool = False
    stores_packed: bool = False
    sparsity_patterns: tuple[str, ...] = ()
    sparsity_speedup: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Capabilities:
        """From what ``dataclasses.asdict`` made of one, and JSON of that."""
        precisions = tuple(Precision(**p) for p in value["precisions"])
        patterns = tuple(value["sparsity_patterns"])
        return cls(**{**value, "precisions": precisions, "sparsity_patterns": patterns})
