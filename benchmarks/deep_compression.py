"""How small a network gets on disk when its architecture stays: LeNet-300-100 and LeNet-5 on MNIST.

The networks of Deep Compression (Han et al. 2016, arXiv:1510.00149): 784-300-100-10, and Caffe's
LeNet (20 and 50 filters of 5x5, 500, 10). Each is trained, made sparse while it trains on, its
weights and biases are made to share values, the values are trained, it is exported and packed. The
ratio is that of 32 bits for every parameter to the bytes of the ``.acz`` file, with everything that
is needed to run it. The error is that of the unpacked model in ONNX Runtime on the 10,000 test
examples, which decide nothing here: the settings are fixed beforehand.

Training examples are shifted by up to two pixels; the dense network teaches the sparse one.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from autocompress.compression.clusters import cluster
from autocompress.compression.gradual import Goal, GradualSparsity
from autocompress.compression.registry import make_techniques
from autocompress.compression.simulation import simulate_weights
from autocompress.core.candidate import Candidate, LayerPolicy, Recipe
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.evaluation.data import Data
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.evaluation.splits import Split
from autocompress.evaluation.task import Task
from autocompress.export.onnx_export import export_onnx
from autocompress.export.packing.container import pack, unpack
from autocompress.graph.inspect import inspect_model
from autocompress.graph.ops import Op
from autocompress.runtimes.registry import load_runtime

_BATCH = 128


class LeNet300(nn.Module):
    """784-300-100-10, ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, shape ``(n, 10)``, of images ``(n, 1, 28, 28)``."""
        y: torch.Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x.flatten(1))))))
        return y


class LeNet5(nn.Module):
    """Caffe's LeNet: no activation behind the convolutions but their max pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, shape ``(n, 10)``, of images ``(n, 1, 28, 28)``."""
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.max_pool2d(self.conv2(x), 2)
        y: torch.Tensor = self.fc2(torch.relu(self.fc1(x.flatten(1))))
        return y


@dataclass(frozen=True, slots=True)
class Settings:
    """What is done with one network.

    Attributes:
        network: its class.
        sparsity: share of weights that become zero.
        codebook: values that the others of a layer share.
        biases: values that a layer's biases share.
        dense: epochs of training before.
        sparse: epochs while zeros come in and after.
        shared: epochs that the shared values are trained.
    """

    network: type[nn.Module]
    sparsity: float
    codebook: int
    biases: int
    dense: int
    sparse: int
    shared: int


SETTINGS = {
    "lenet300": Settings(LeNet300, 0.96, 16, 8, 20, 60, 10),
    "lenet5": Settings(LeNet5, 0.98, 16, 8, 12, 40, 10),
}


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs MNIST."""
    from benchmarks._data import folder

    read = Data.load(f"mnist:{folder(data, 'mnist')}")
    held = Data(read.train, read.val, read.test, augment="shift")
    result: dict[str, Any] = {}
    print(f"{'network':10} {'stage':26} {'error %':>8} {'zeros':>7} {'seconds':>8}")
    for name, settings in SETTINGS.items():
        with tempfile.TemporaryDirectory(prefix="autocompress-bench-") as scratch:
            found = _Run(name, settings, held, Path(scratch), quick=quick, seed=seed).run()
        result |= {f"{name}_{key}": value for key, value in found.items()}
    return result


class _Run:
    def __init__(
        self, name: str, settings: Settings, data: Data, folder: Path, *, quick: bool, seed: int
    ) -> None:
        self.name, self.settings, self.data, self.folder = name, settings, data, folder
        self.quick, self.seed = quick, seed
        self.task = Task()
        self.started = time.monotonic()

    def run(self) -> dict[str, float]:
        """The ratio, the error and what led there."""
        torch.manual_seed(self.seed)
        settings = self.settings
        model = settings.network()
        self._train(model, settings.dense, rate=1e-3, teacher=None)
        dense = self._error(model)
        self._say("trained", dense, 0.0)
        teacher = copy.deepcopy(model).eval()
        layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        pruner = GradualSparsity(model, layers, Goal(settings.sparsity))
        self._train(model, settings.sparse, rate=1e-3, teacher=teacher, after_step=pruner)
        sparse = self._error(model)
        self._say("sparse", sparse, pruner.sparsity)
        _share_biases(model, settings.biases)
        simulated, ops, example = self._shared(model, layers)
        self._train(simulated, settings.shared, rate=3e-4, teacher=teacher)
        packed, restored = self._packed(simulated, ops, example)
        error, size = self._error_of_file(restored), packed.stat().st_size
        parameters = sum(p.numel() for p in model.parameters())
        self._say("shared, packed, unpacked", error, pruner.sparsity)
        ratio = 4 * parameters / size
        print(f"{self.name:10} {size:,} bytes, {ratio:.1f}x of {4 * parameters:,}; "
              f"the ONNX file has {restored.stat().st_size:,}")  # fmt: skip
        return {
            "ratio": ratio, "error": error, "bytes": size, "dense_error": dense,
            "sparse_error": sparse, "sparsity": pruner.sparsity,
        }  # fmt: skip

    def _say(self, stage: str, error: float, zeros: float) -> None:
        spent = time.monotonic() - self.started
        print(f"{self.name:10} {stage:26} {error:8.2f} {zeros:7.2%} {spent:8.0f}", flush=True)

    def _train(
        self, model: nn.Module, epochs: int, *, rate: float, teacher: nn.Module | None, **more: Any
    ) -> None:
        steps = 60 if self.quick else epochs * len(self.data.train) // _BATCH
        recipe = Recipe(
            distillation="none" if teacher is None else "response",
            distillation_weight=0.7, temperature=4.0, learning_rate=rate,
        )  # fmt: skip
        fine_tune(
            model, self.data.train, self.task, recipe=recipe, steps=steps, seed=self.seed,
            teacher=teacher, batch_size=_BATCH, **more,
        )  # fmt: skip

    def _shared(
        self, model: nn.Module, layers: Sequence[str]
    ) -> tuple[fx.GraphModule, tuple[Op, ...], torch.Tensor]:
        example = self.data.example()[0]
        graph = inspect_model(model.eval(), (example,))
        elastic = ElasticModel(graph, make_techniques(["clustering"]))
        policy = LayerPolicy(codebook=self.settings.codebook)
        candidate = Candidate(layers=dict.fromkeys(layers, policy))
        plain, ops = realise(elastic, candidate), graph.operations(candidate)
        simulated = simulate_weights(plain, ops)
        for name, parameter in simulated.named_parameters():
            parameter.requires_grad_(name.endswith("values"))
        return simulated, ops, example

    def _packed(
        self, model: fx.GraphModule, ops: tuple[Op, ...], example: torch.Tensor
    ) -> tuple[Path, Path]:
        path = self.folder / f"{self.name}.onnx"
        export_onnx(model, ops, (example,), path)
        packed = pack(path)
        return packed, unpack(packed, self.folder / "restored.onnx")

    def _error(self, model: nn.Module) -> float:
        return _percent(lambda x: model(x).numpy(), self.data.test)

    def _error_of_file(self, path: Path) -> float:
        session = load_runtime().load(path, threads=1)
        name = session.inputs[0].name
        return _percent(lambda x: session.run({name: x.numpy()})[0], self.data.test)


@torch.no_grad()
def _percent(answer: Any, split: Split) -> float:
    wrong = total = 0
    for inputs, targets in split.batches(1000):
        wrong += int((np.argmax(answer(inputs), axis=1) != targets.numpy()).sum())
        total += len(targets)
    return 100.0 * wrong / total


@torch.no_grad()
def _share_biases(model: nn.Module, count: int) -> None:
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, torch.Tensor):
            values, indices = cluster(bias, count)
            bias.copy_(values[indices.long()])
