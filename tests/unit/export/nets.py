"""Small networks and the steps from a network to an exported file, shared by tests."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import fx, nn
from torch.nn import functional

from autocompress.compression.low_rank import LowRank
from autocompress.compression.quantization import simulate_quantization
from autocompress.compression.sparsity import Sparsity
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.export.onnx_export import ExportedModel, export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.ops import Op


class DigitNet(nn.Module):
    """Residual addition, depthwise, max pool, concatenation, average pools, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 24, 1)
        self.side = nn.Conv2d(16, 8, 1)
        self.hidden = nn.Linear(32, 32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.body(x))
        x = functional.max_pool2d(x, 2)
        left = functional.relu6(self.point(torch.relu(self.depthwise(x))))
        x = torch.cat([left, torch.relu(self.side(x))], 1)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        out: torch.Tensor = self.out(torch.relu(self.hidden(x)))
        return out


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training inputs and targets, test inputs and targets."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1297], y[:1297], x[1297:], y[1297:]


def train(model: nn.Module, steps: int, seed: int = 0, rate: float = 5e-3) -> nn.Module:
    torch.manual_seed(seed)
    x, y, _, _ = digits()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(0, len(x), (64,))
        loss = functional.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@cache
def digit_graph() -> ModelGraph:
    torch.manual_seed(0)
    return inspect_model(train(DigitNet(), 150), (digits()[0][:1],))


def policies(
    graph: ModelGraph, weight_bits: int, activation_bits: int, **others: LayerPolicy
) -> Candidate:
    """One precision everywhere but in the layers named."""
    same = LayerPolicy(weight_bits=weight_bits, activation_bits=activation_bits)
    layers: Mapping[str, LayerPolicy] = {**dict.fromkeys(graph.layers, same), **others}
    return Candidate(layers=layers)


def realised(graph: ModelGraph, candidate: Candidate) -> tuple[fx.GraphModule, tuple[Op, ...]]:
    model = realise(ElasticModel(graph, [LowRank(), Sparsity()]), candidate)
    return fold_batch_norm(model), graph.operations(candidate)


@dataclass(frozen=True)
class Exported:
    simulated: fx.GraphModule
    ops: tuple[Op, ...]
    file: ExportedModel


def export(graph: ModelGraph, candidate: Candidate, path: Path) -> Exported:
    model, ops = realised(graph, candidate)
    inputs = digits()[0][:256]
    simulated = simulate_quantization(model, ops, [inputs])
    file = export_onnx(simulated, ops, (inputs[:1],), path)
    return Exported(simulated, ops, file)


def export_captured(
    model: nn.Module, bits: tuple[int, int], x: torch.Tensor, path: Path
) -> Exported:
    """Straight from a captured model, at full width, calibrated on ``x``."""
    graph = inspect_model(model.eval(), (x[:1],))
    ops = graph.operations(policies(graph, *bits))
    simulated = simulate_quantization(fold_batch_norm(copy.deepcopy(graph.module)), ops, [x])
    return Exported(simulated, ops, export_onnx(simulated, ops, (x[:1],), path))
