"""Packed models: bytes against entropy, and how fast they are packed and unpacked.

Synthetic weights of a megabyte each: Laplace-distributed codes of 8, 4 and 2 bits, without zeros,
with zeros anywhere and with zeros that gather in rows and columns; codes of 13 values, floats of 32
and 16 bits, floats of 16 values, and all of them in one ONNX file. ``entropy`` is the empirical
entropy of the codes one by one (for floats: of their bytes); speeds are the ONNX file's bytes by
CPU seconds of one core, medians of several runs, with the checksums that a file has.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from autocompress.export.packing.container import pack_bytes, unpack_bytes
from autocompress.export.writer import pack_codes

_ONNX = {
    2: TensorProto.INT2,
    4: TensorProto.INT4,
    8: TensorProto.INT8,
    16: TensorProto.FLOAT16,
    32: TensorProto.FLOAT,
}


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs no data."""
    rng = np.random.default_rng(seed)
    size = 1 << (17 if quick else 20)
    tensors = _tensors(rng, size)
    result: dict[str, Any] = {}
    print(f"{'tensor':16} {'bytes':>10} {'packed':>10} {'/ entropy':>10} {'pack MB/s':>10} "
          f"{'unpack MB/s':>12}")  # fmt: skip
    everything = [(kind, raw) for kind, raw, _ in tensors.values()]
    named = {name: ([(kind, raw)], entropy) for name, (kind, raw, entropy) in tensors.items()}
    for name, (held, entropy) in {**named, "all": (everything, 0.0)}.items():
        model = _model(held)
        empty = len(pack_bytes(_model([(kind, b"") for kind, _ in held])))
        start = time.process_time()
        packed = pack_bytes(model)
        packing = time.process_time() - start
        taken = []
        for _ in range(3 if quick else 7):
            start = time.process_time()
            restored = unpack_bytes(packed)
            taken.append(time.process_time() - start)
        if restored != model:
            raise RuntimeError(f"{name} was not restored")
        over = (len(packed) - empty) / entropy if entropy else float("nan")
        speed = len(model) / 1e6 / float(np.median(taken))
        print(f"{name:16} {len(model):10,} {len(packed):10,} {over:10.4f} "
              f"{len(model) / 1e6 / packing:10.1f} {speed:12.1f}")  # fmt: skip
        result |= {f"{name}_ratio": len(model) / len(packed), f"{name}_mb_s": speed}
        if entropy:
            result[f"{name}_over_entropy"] = over
    return result


def _tensors(rng: np.random.Generator, size: int) -> dict[str, tuple[int, bytes, float]]:
    found: dict[str, tuple[int, bytes, float]] = {}
    for bits in (8, 4, 2):
        levels = 2 ** (bits - 1) - 1
        drawn = np.round(rng.laplace(0, levels * 0.3, size * 8 // bits))
        codes = np.clip(drawn, -levels, levels).astype(np.int8)
        for zeros in (0.0, 0.9):
            sparse = np.where(rng.random(len(codes)) < zeros, 0, codes).astype(np.int8)
            name = f"int{bits}" + (f"_{zeros:.0%}_zero" if zeros else "")
            name = name.replace("%", "")
            found[name] = (_ONNX[bits], pack_codes(sparse, bits), _entropy(sparse))
        likely = rng.beta(0.2, 1.5, 256) * rng.choice([0.1, 1.0, 2.0], (len(codes) // 256, 1))
        gathered = np.where(rng.random(likely.shape) < likely, codes.reshape(-1, 256), 0).ravel()
        found[f"int{bits}_gathered"] = (_ONNX[bits], pack_codes(gathered, bits), _entropy(gathered))
    few = np.clip(np.round(rng.normal(0, 1.5, size)), -6, 6).astype(np.int8)
    found["int8_13_values"] = (_ONNX[8], few.tobytes(), _entropy(few))
    for bits in (32, 16):
        floats = rng.standard_normal(size * 8 // bits).astype(f"f{bits // 8}")
        planes = floats.view(np.uint8).reshape(-1, bits // 8).T
        found[f"fp{bits}"] = (_ONNX[bits], floats.tobytes(), sum(map(_entropy, planes)))
    indices = rng.integers(0, 16, size // 4)
    shared = rng.standard_normal(16).astype(np.float32)[indices]
    found["fp32_16_values"] = (_ONNX[32], shared.tobytes(), _entropy(indices))
    return found


def _entropy(codes: npt.NDArray[Any]) -> float:
    """Bytes that the codes take at least when coded one by one."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) / 8


def _model(tensors: list[tuple[int, bytes]]) -> bytes:
    graph = helper.make_graph([], "weights", [], [])
    for number, (kind, raw) in enumerate(tensors):
        per_byte = {int(TensorProto.INT4): 2, int(TensorProto.INT2): 4}.get(kind, 1)
        width = {int(TensorProto.FLOAT): 4, int(TensorProto.FLOAT16): 2}.get(kind, 1)
        count = len(raw) * per_byte // width
        graph.initializer.append(
            TensorProto(name=f"w{number}", data_type=kind, raw_data=raw, dims=[count // 256, 256])
        )
    return bytes(helper.make_model(graph).SerializeToString())
