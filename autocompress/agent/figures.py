"""A model's figures: what is counted, what is estimated, and the same layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, TypeAlias

from autocompress.agent.context import Context
from autocompress.core.candidate import Candidate
from autocompress.errors import RequestError
from autocompress.export.packing.container import pack
from autocompress.export.verification import Verification
from autocompress.graph.operations import whole_layer
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.memory_model import USUAL, MemoryModel
from autocompress.hardware.size import size_bytes, weight_bytes

#: A model's figures; keys are the columns of ``pareto.csv``.
Row: TypeAlias = dict[str, Any]


def counted(ops: Sequence[Op], path: Path, memory: MemoryModel | None = None) -> Row:
    """Bytes of the file and of what is packed from it, and what the operations come to."""
    return {
        "size_bytes": path.stat().st_size,
        "packed_bytes": _packed_bytes(path),
        "size_estimate_bytes": size_bytes(ops, quantized_tensors(ops)),
        "macs": sum(op.macs for op in ops),
        "parameters": sum(op.parameters for op in ops),
        "peak_memory_bytes": (memory or USUAL).peak_bytes(ops, quantized_tensors(ops)),
    }


def _packed_bytes(path: Path) -> int | None:
    """Bytes of the packed file; None of one that cannot be packed, such as 64 MB of zeros."""
    try:
        packed = pack(path)
    except RequestError:
        return None
    try:
        return packed.stat().st_size
    finally:
        packed.unlink()


def estimated(context: Context, ops: Sequence[Op]) -> Row:
    """The profile's latency with its band, and energy if it knows; nothing before the prices."""
    predictor: Any = context.predictor
    if predictor is None:
        return {}  # the table is made after the baselines
    kernels = predictor.kernels(ops)
    found = predictor.estimate_kernels(kernels)
    return {
        "energy_mj": predictor.energy_mj(kernels, found.value),
        "latency_estimate_ms": found.value,
        "latency_estimate_low_ms": found.low,
        "latency_estimate_high_ms": found.high,
    }


def share_interval(found: Verification) -> Row:
    """95 % Wilson interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    share, n = found.metrics.get("accuracy"), found.examples
    if share is None or not n:
        return {}
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"accuracy_low": max(0.0, centre - half), "accuracy_high": min(1.0, centre + half)}


def _width(op: Op) -> int:
    """Channels that a layer gives; of an embedding, entries of a row."""
    return op.weight_shape[1 if op.kind == "embedding" else 0]


def layer_rows(context: Context, candidate: Candidate, ops: Sequence[Op]) -> list[Row]:
    """One row per layer that remains."""
    prices: Mapping[str, float] = {}
    if context.predictor is not None:
        prices = context.predictor.by_op(ops)
    rows: dict[str, Row] = {}
    for op in ops:
        if op.layer is None:
            continue
        name = whole_layer(op.layer, context.space.graph.layers)
        known = context.space.graph.layers[name]
        policy = candidate.policy(name)
        split = op.layer != name  # otherwise the rank saved nothing in what is left of the layer
        row = rows.setdefault(
            name,
            {
                "name": name,
                "kind": "depthwise conv" if known.is_depthwise else known.kind,
                "weight_bits": policy.weight_bits,
                "activation_bits": op.activation_bits,
                "width": _width(op),
                "original_width": known.out_channels,
                "sparsity": policy.sparsity,
                "pattern": policy.pattern,
                "rank": policy.rank if split else None,
                "input_rank": policy.input_rank if split else None,
                "factorization": policy.factorization if split else None,
                "codebook": policy.codebook,
                "macs": 0,
                "parameters": 0,
                "bytes": 0,
                "latency_estimate_ms": 0.0,
            },
        )
        row["width"] = _width(op)
        row["macs"] += op.macs
        row["parameters"] += op.parameters
        row["bytes"] += weight_bytes(op)
        row["latency_estimate_ms"] += prices.get(op.name, 0.0)
    return list(rows.values())
