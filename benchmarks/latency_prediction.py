"""Estimated against measured end-to-end latency on this machine, networks never fitted to.

Two sets, both held out of the calibration: reference networks (residual, inverted residual, plain,
fully connected; float, integer and mixed; CIFAR and digits sizes) and candidates of a search space,
exported by the product's own exporter. Their kernels are measured kernel by kernel, as a search
does; no figure of a held-out network enters its estimate. ``naive_within10`` prices the same
networks by what their float operations take one at a time, the usual look-up table.
``truth_repeat`` is how often a second measurement, in a later window, is within 5 % of the first:
the ceiling.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocompress.compression.quantization import simulate_quantization
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.ops import Op
from autocompress.hardware.local import local_profile
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.models import measure_interleaved
from autocompress.measurement.networks import Network, reference_networks
from autocompress.measurement.protocol import TimingProtocol
from benchmarks.pricing import ResNet20

TRUTH = TimingProtocol("truth", warmup=20, min_runs=150, min_seconds=0.15, passes=9, processes=3)
_GROUP = 8


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs no data."""
    torch.set_num_threads(1)
    before = os.environ.get("AUTOCOMPRESS_CACHE")
    with tempfile.TemporaryDirectory(prefix="autocompress-bench-") as scratch:
        os.environ["AUTOCOMPRESS_CACHE"] = scratch  # a table of its own, measured now
        try:
            return _run(Path(scratch), 12 if quick else 43, 6 if quick else 15, seed)
        finally:
            if before is None:
                del os.environ["AUTOCOMPRESS_CACHE"]
            else:
                os.environ["AUTOCOMPRESS_CACHE"] = before


def _run(scratch: Path, count: int, candidates: int, seed: int) -> dict[str, Any]:
    fitted = reference_networks(max(12, count // 2), seed=2 * seed + 101)
    held_out = reference_networks(3 * count, seed=2 * seed + 102)
    paths = {n.name: _write(n, scratch) for n in (*fitted, *held_out)}
    space = _candidates(scratch, candidates, seed)
    paths |= {n.name: scratch / f"{n.name}.onnx" for n in space}

    predictor = LatencyPredictor.for_device(local_profile())
    networks = [*fitted, *held_out, *space]
    singles = {n.name: _single_kernels(predictor, n.ops) for n in held_out}
    wanted = [k for n in networks for k in predictor.kernels(n.ops)]
    predictor.measure([*wanted, *(k for kernels in singles.values() for k in kernels)])
    measured = _measure(paths)
    again = _measure({n.name: paths[n.name] for n in (*held_out, *space)})
    predictor.calibrate([(n.ops, measured[n.name]) for n in fitted])

    rows = [(n.name, predictor.estimate(n.ops).value, measured[n.name]) for n in held_out]
    space_rows = [(n.name, predictor.estimate(n.ops).value, measured[n.name]) for n in space]
    errors, space_errors = _errors(rows), _errors(space_rows)
    naive = [sum(predictor.price(k).hot_us for k in singles[n.name]) / 1e3 for n in held_out]
    naive_errors = np.array(naive) / np.array([m for _, _, m in rows]) - 1.0
    repeat = np.array([again[name] / measured[name] - 1.0 for name in again])
    _print([*rows, *space_rows])
    calibration = predictor.calibration
    return {
        "n": len(rows),
        "n_space": len(space_rows),
        "kernels": len(predictor.profile.table),
        "within5": float((abs(errors) <= 0.05).mean()),
        "within10": float((abs(errors) <= 0.10).mean()),
        "mape": float(abs(errors).mean()),
        "bias": float(errors.mean()),
        "worst": float(abs(errors).max()),
        "spearman": _spearman([e for _, e, _ in rows], [m for _, _, m in rows]),
        "space_within5": float((abs(space_errors) <= 0.05).mean()),
        "space_within10": float((abs(space_errors) <= 0.10).mean()),
        "space_spearman": _spearman([e for _, e, _ in space_rows], [m for _, _, m in space_rows]),
        "naive_within10": float((abs(naive_errors) <= 0.10).mean()),
        "naive_mape": float(abs(naive_errors).mean()),
        "truth_repeat": float((abs(repeat) <= 0.05).mean()),
        "a": calibration.a,
        "kernel_us": calibration.kernel_us,
        "t0_us": calibration.t0_us,
    }


def _write(network: Network, folder: Path) -> Path:
    path = folder / f"{network.name}.onnx"
    path.write_bytes(network.onnx())
    return path


def _candidates(folder: Path, count: int, seed: int) -> list[Network]:
    """Random candidates of two spaces, exported for real."""
    torch.manual_seed(seed)
    step16 = Capabilities(channel_step=16)
    digits, cifar = torch.randn(1, 1, 8, 8), torch.randn(1, 3, 32, 32)
    named = load_space("tiny_cnn", input_shape=(1, 8, 8), num_classes=10, capabilities=step16)
    model = ElasticSpace.from_model(ResNet20(), (cifar,), capabilities=step16)
    rng = np.random.default_rng(seed)
    found = []
    for name, space, example in (("tiny_cnn", named, digits), ("resnet20", model, cifar)):
        elastic = ElasticModel(space.graph, space.techniques)
        for number in range(count):
            candidate = space.decode(space.sample(rng))
            network = Network(f"{name}-{number}", space.graph.operations(candidate))
            small = realise(elastic, candidate).eval()
            fold_batch_norm(small)
            inputs = torch.randn(16, *example.shape[1:])
            simulated = simulate_quantization(small, network.ops, [inputs])
            export_onnx(simulated, network.ops, (example,), folder / f"{network.name}.onnx")
            found.append(network)
    return found


def _single_kernels(predictor: LatencyPredictor, ops: Sequence[Op]) -> list[KernelSignature]:
    """The kernels of each operation as a float network of its own."""
    by_name = {op.name: op for op in ops}
    found: list[KernelSignature] = []
    for op in ops:
        if op.kind in {"input", "output"}:
            continue
        inputs = [Op(n, "input", (), by_name[n].shape) for n in dict.fromkeys(op.inputs)]
        alone = replace(op, weight_bits=32, activation_bits=32)
        end = Op("alone.output", "output", (op.name,), op.shape)
        found += predictor.kernels([*inputs, alone, end])
    return found


def _measure(paths: dict[str, Path]) -> dict[str, float]:
    found: dict[str, float] = {}
    names = list(paths)
    for start in range(0, len(names), _GROUP):
        group = names[start : start + _GROUP]
        measured = measure_interleaved([paths[n] for n in group], protocol=TRUTH)
        found |= {n: m.value for n, m in zip(group, measured, strict=True) if m.ok}
    return found


def _errors(rows: Sequence[tuple[str, float, float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([estimate / truth - 1.0 for _, estimate, truth in rows])


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _print(rows: Sequence[tuple[str, float, float]]) -> None:
    print(f"{'network':36} {'measured us':>12} {'estimated us':>13} {'error':>8}")
    for name, estimate, truth in rows:
        print(f"{name:36} {truth * 1e3:12.1f} {estimate * 1e3:13.1f} {estimate / truth - 1:+8.1%}")
