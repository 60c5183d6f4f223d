"""Candidates on the digits, all the way to the runtime: simulated, realised, exported and run.

Half of them come from a user's model (a small residual network with a depthwise layer), half from
the named space tiny_cnn; both are trained first. Each is

1. run by the elastic model and compared with its physically small, realised form (weights in both
   as they are stored), and that with and without batch norm folded: ``float_diff``, relative to the
   largest output when that is above 1;
2. trained for a few steps, quantised in simulation, exported, and run by ONNX Runtime on the whole
   test split: ``agreement``; ``steps``, the largest difference of any uint8 tensor when each
   operation starts from the runtime's own integers; and ``output_steps``, the largest difference at
   the end of the network, where what every operation adds has passed through all later ones, in
   steps of a uint8 tensor that would cover the outputs' range.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compression.quantization import simulate_quantization, simulate_weights
from autocompress.core.candidate import Candidate, Recipe
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.data import Data
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.evaluation.task import Task
from autocompress.export.onnx_export import export_onnx
from autocompress.export.stepwise import steps_apart
from autocompress.export.verification import Expectations, verify_artifact
from autocompress.graph.folding import fold_batch_norm
from autocompress.runtimes.registry import load_runtime
from benchmarks._subjects import CAPABILITIES


class UserModel(nn.Module):
    """A small network as a user might write it: residual, depthwise, batch norm, two poolings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        self.left = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24))
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.point = nn.Sequential(nn.Conv2d(24, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.wide = nn.Conv2d(48, 48, 3, padding=1)
        self.hidden = nn.Linear(48, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 1, 8, 8)`` to ``(n, 10)``."""
        x = self.stem(x)
        x = torch.relu(x + self.left(x))
        x = nn.functional.max_pool2d(x, 2)
        x = self.point(self.depthwise(x))
        x = torch.relu(self.wide(x)).mean((2, 3))
        out: torch.Tensor = self.out(torch.relu(self.hidden(x)))
        return out


@dataclass(frozen=True)
class Row:
    """One candidate's figures."""

    way: str
    candidate: str
    layers: str
    float_diff: float
    agreement: float
    steps: int
    steps_share: float
    output_steps: float
    runtime_diff: float
    accuracy: float
    size_bytes: int
    checks_ok: bool
    seconds: float


def digit_rows(data: Data, count: int, steps: int, seed: int) -> list[Row]:
    """Figures of as many random candidates of the model, and of the space.

    Args:
        data: the digits.
        count: candidates of each.
        steps: of training, in floats; half as many more once quantised.
        seed: of everything random.
    """
    return [
        row
        for way, space in _spaces(data, seed).items()
        for row in _rows(way, space, data, count, steps, seed)
    ]


def _spaces(data: Data, seed: int) -> dict[str, ElasticSpace]:
    example = data.example(1)[0]
    torch.manual_seed(seed)
    model = ElasticSpace.from_model(UserModel(), (example,), capabilities=CAPABILITIES)
    named = load_space(
        "tiny_cnn", input_shape=data.input_shape, num_classes=10,
        capabilities=CAPABILITIES, seed=seed,
    )  # fmt: skip
    return {"model": model, "space": named}


def _rows(
    way: str, space: ElasticSpace, data: Data, count: int, steps: int, seed: int
) -> list[Row]:
    elastic = ElasticModel(space.graph, space.techniques)
    elastic.configure(space.decode(space.original))
    recipe = Recipe(distillation="none", learning_rate=4e-3)
    fine_tune(elastic, data.train, Task(), recipe=recipe, steps=150, seed=seed)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < count:
        candidate = space.decode(space.sample(rng))
        if candidate.id not in seen:
            seen.add(candidate.id)
            rows.append(_row(way, elastic, candidate, data, steps, seed))
    return rows


def _row(
    way: str, elastic: ElasticModel, candidate: Candidate, data: Data, steps: int, seed: int
) -> Row:
    started = time.perf_counter()
    ops = elastic.graph.operations(candidate)
    model = realise(elastic, candidate)
    small = simulate_weights(model, ops).eval()
    difference = _difference(elastic.configure(candidate).eval(), small, data)
    calibration = [x for x, _ in data.calibration.batches(64)]
    reestimate_batch_norm(model, calibration)
    recipe = Recipe(distillation="none", learning_rate=2e-3)
    fine_tune(model, data.train, Task(), recipe=recipe, steps=steps, seed=seed)
    unfolded = copy.deepcopy(model)
    fold_batch_norm(model)
    difference = max(difference, _difference(unfolded.eval(), model.eval(), data))
    simulated = simulate_quantization(model, ops, calibration)
    fine_tune(simulated, data.train, Task(), recipe=recipe, steps=steps // 2, seed=seed)
    integer = any(op.is_integer_layer for op in ops)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exported = export_onnx(simulated, ops, (data.example(1)[0],), path)
        result = verify_artifact(
            path, reference=simulated, batches=data.test.batches(256), metric=Task().evaluate,
            expectations=Expectations(sha256=exported.sha256, size_bytes=exported.size_bytes),
        )  # fmt: skip
        reach = _reach(path, data)
        apart = steps_apart(exported, simulated, data.test.first(128)[:1], load_runtime())
    runtime_diff = result.metrics.get("max_difference", float("inf"))
    return Row(
        way, candidate.id, _bits(ops), difference, result.metrics.get("agreement", 0.0),
        max((s.largest for s in apart.values()), default=0 if integer else -1),
        max((s.share for s in apart.values()), default=0.0),
        runtime_diff / reach * 255 if integer else 0.0, runtime_diff,
        result.metrics.get("accuracy", 0.0), exported.size_bytes, result.ok,
        time.perf_counter() - started,
    )  # fmt: skip


def _difference(expected: nn.Module, found: nn.Module, data: Data) -> float:
    """Largest difference of outputs, relative to the largest output when that is above 1."""
    inputs = data.test.first(128)[0]
    with torch.no_grad():
        first, second = expected(inputs), found(inputs)
    return float((first - second).abs().max()) / max(1.0, float(first.abs().max()))


def _reach(path: Path, data: Data) -> float:
    """The range of the model's outputs on the test split, holding 0."""
    session = load_runtime().load(path)
    outputs = np.concatenate([session.run([x.numpy()])[0] for x, _ in data.test.batches(256)])
    return max(float(outputs.max()), 0.0) - min(float(outputs.min()), 0.0) or 1.0


def _bits(ops: Any) -> str:
    return " ".join(
        "fp32" if op.weight_bits == 32 else f"w{op.weight_bits}a{op.activation_bits}"
        for op in ops
        if op.layer is not None
    )


def print_rows(rows: list[Row]) -> None:
    """A line a candidate."""
    print(f"{'way':6} {'candidate':13} {'float diff':>10} {'agree':>7} {'steps':>6} "
          f"{'output':>6} {'acc':>6} {'bytes':>8}  layers")  # fmt: skip
    for row in rows:
        steps = f"{row.steps:6d}" if row.steps >= 0 else "     -"
        flag = "" if row.checks_ok else "  FAILED A CHECK"
        print(
            f"{row.way:6} {row.candidate:13} {row.float_diff:10.1e} {row.agreement:7.4f} {steps} "
            f"{row.output_steps:6.2f} {row.accuracy:6.3f} {row.size_bytes:8,}  "
            f"{row.layers[:60]}{flag}"
        )
