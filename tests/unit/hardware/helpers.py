"""A profile with a table made from a formula, and a small space, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.core.candidate import Candidate
from autocompress.core.space import Choice, Genome, SearchSpace
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.machine import Machine
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.table import LatencyRow, LatencyTable
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import reference_networks

MACHINE = Machine("cpu", "x86_64", ("avx2",), 2, 1 << 30)


def formula_us(kernel: KernelSignature) -> float:
    """A made-up time: what the tests know the table by."""
    return 0.3 + kernel.macs / 5e4 + (kernel.weight_bytes + kernel.activation_bytes) / 2e4


def row(kernel: KernelSignature) -> LatencyRow:
    us = round(formula_us(kernel), 4)
    return LatencyRow(kernel, us, us, us, us, 10, "2026-01-01", "test")


def profile(rows: Sequence[LatencyRow] = (), **more: Any) -> HardwareProfile:
    return HardwareProfile(
        "board", "a board", "measured", MACHINE, table=LatencyTable(rows), **more
    )


def table_kernels(count: int = 12, seed: int = 1) -> list[KernelSignature]:
    found = {
        k.key: k
        for n in reference_networks(count, seed=seed)
        for k in lower(n.ops, quantized_tensors(n.ops))
        if not k.is_view
    }
    return list(found.values())


class TinySpace(SearchSpace):
    """Two stages of residual blocks: widths, bits, a block to skip, a rank."""

    def __init__(self) -> None:
        self._choices = (
            Choice("width:0", (32, 16, 24)),
            Choice("width:1", (48, 32, 18)),
            Choice("inner", (32, 16, 12)),
            Choice("skip", (0, 1)),
            Choice("rank", (None, 16, 8)),
            *(Choice(f"bits:{i}", (32, 8, 4)) for i in range(6)),
        )

    @property
    def name(self) -> str:
        return "tiny"

    @property
    def choices(self) -> Sequence[Choice]:
        return self._choices

    def decode(self, genome: Genome) -> Candidate:
        raise NotImplementedError

    def encode(self, candidate: Candidate) -> Genome:
        raise NotImplementedError

    def build(self, candidate: Candidate) -> Any:
        raise NotImplementedError

    def operations(self, genome: Genome) -> tuple[Op, ...]:
        chosen: dict[str, Any] = {
            c.name: c.options[int(i)] for c, i in zip(self._choices, genome, strict=True)
        }
        ops = [Op("x", "input", (), (1, 3, 8, 8))]
        shapes: dict[str, tuple[int, ...]] = {"x": (1, 3, 8, 8)}

        def add(
            name: str, kind: str, *inputs: str, shape: tuple[int, ...] = (), **more: Any
        ) -> str:
            shapes[name] = shape or shapes[inputs[0]]
            ops.append(Op(name, kind, inputs, shapes[name], **more))
            return name

        def conv(name: str, source: str, width: int, bits: int, kernel: int = 3) -> str:
            pad = kernel // 2
            return add(
                name,
                "conv",
                source,
                shape=(1, width, *shapes[source][2:]),
                layer=name,
                attributes=(("bias", 1), ("kernel", (kernel, kernel)), ("padding", (pad, pad))),
                weight_shape=(width, shapes[source][1], kernel, kernel),
                weight_bits=bits,
                activation_bits=8 if bits <= 8 else 32,
            )

        bits = [int(chosen[f"bits:{i}"]) for i in range(6)]
        x = add("stem_relu", "relu", conv("stem", "x", chosen["width:0"], bits[0]))
        if not chosen["skip"]:
            inner = conv("a1", x, chosen["inner"], bits[1])
            y = conv("a2", add("a1_relu", "relu", inner), chosen["width:0"], bits[2])
            x = add("a_relu", "relu", add("a_add", "add", y, x))
        rank = chosen["rank"]
        if rank is not None and rank < min(chosen["width:1"], chosen["width:0"]):
            x = conv("b_reduce", x, rank, bits[3])
            x = conv("b", x, chosen["width:1"], bits[3], kernel=1)
        else:
            x = conv("b", x, chosen["width:1"], bits[3])
        x = add("pool", "max_pool", add("b_relu", "relu", x), shape=(1, chosen["width:1"], 4, 4))
        x = add("gap", "global_avg_pool", x, shape=(1, chosen["width:1"]))
        for i, (name, features) in enumerate((("hidden", 32), ("head", 10))):
            x = add(
                name,
                "linear",
                x,
                shape=(1, features),
                layer=name,
                attributes=(("bias", 1),),
                weight_shape=(features, shapes[x][1]),
                weight_bits=bits[4 + i],
                activation_bits=8 if bits[4 + i] <= 8 else 32,
            )
        add("y", "output", x)
        return tuple(ops)

    def random(self, count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
        rng = np.random.default_rng(seed)
        return np.stack([self.sample(rng) for _ in range(count)])
