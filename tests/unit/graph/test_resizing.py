"""Input resolution as a choice: exact in every form that a candidate takes."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.registry import make_techniques
from autocompress.compression.simulation import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.precision import quantized_tensors
from autocompress.graph.resizing import Resize, usual_heights
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.lowerings.registry import load_lowering
from autocompress.measurement.kernel_models import kernel_model
from autocompress.measurement.kernels import signatures
from autocompress.runtimes.registry import load_runtime
from tests.unit.networks import EVERYTHING, ResNet, randomise


class Resized(nn.Module):
    """A network behind a choice of resolution."""

    def __init__(self, heights: tuple[int, ...] = (24, 20, 16, 13)) -> None:
        super().__init__()
        self.resize = Resize(heights)
        self.network = ResNet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.resize(x))  # type: ignore[no-any-return]


def images(batch: int = 2) -> torch.Tensor:
    """Higher than wide, shape ``(batch, 3, 24, 18)``."""
    return torch.randn(batch, 3, 24, 18, generator=torch.Generator().manual_seed(1))


@cache
def space() -> ElasticSpace:
    return ElasticSpace.from_model(
        randomise(Resized()), (images(),),
        techniques=make_techniques(["pruning", "quantization"]), capabilities=EVERYTHING,
    )  # fmt: skip


def at(height: int, policy: LayerPolicy | None = None) -> Candidate:
    layers = {} if policy is None else dict.fromkeys(space().graph.layers, policy)
    return Candidate(architecture={"resolution:resize": height}, layers=layers)


def test_it_is_found_with_its_sizes() -> None:
    (found,) = space().graph.resizings.values()
    assert found.name == "resize"
    assert found.sizes == {24: (24, 18), 20: (20, 15), 16: (16, 12), 13: (13, 10)}
    (choice,) = (c for c in space().choices if c.name.startswith("resolution:"))
    assert choice.options == (24, 20, 16, 13)


def test_the_full_size_leaves_nothing_behind() -> None:
    for candidate in (Candidate(), at(24)):
        names = [op.name for op in space().graph.operations(candidate)]
        assert "resize" not in {op.kind for op in space().graph.operations(candidate)}
        assert not any("upsample" in name for name in names)
        assert not any("upsample" in n.name for n in realise(_elastic(), candidate).graph.nodes)
    with torch.no_grad():
        found = _elastic().configure(Candidate())(images())
        assert torch.allclose(found, randomise(Resized())(images()), atol=1e-4)


def _elastic() -> ElasticModel:
    return ElasticModel(space().graph, space().techniques).eval()


@pytest.mark.parametrize("height", [20, 16, 13])
def test_simulated_is_realised_is_what_the_runtime_computes(height: int, tmp_path: Path) -> None:
    """And all of them are the network of the user on images resized beforehand."""
    candidate, elastic = at(height), _elastic()
    size = (height, round(18 * height / 24))
    smaller = F.interpolate(images(), size, mode="bilinear", align_corners=False)
    model = fold_batch_norm(realise(elastic, candidate))
    ops = space().graph.operations(candidate)
    export_onnx(model, ops, (images(1),), tmp_path / "model.onnx")
    (computed,) = load_runtime().load(tmp_path / "model.onnx").run([images().numpy()])
    with torch.no_grad():
        expected = randomise(Resized()).get_submodule("network")(smaller)
        assert torch.allclose(elastic.configure(candidate)(images()), expected, atol=1e-4)
        assert torch.allclose(model(images()), expected, atol=1e-4)
    assert np.abs(computed - expected.numpy()).max() <= 1e-4


def test_it_saves_what_it_should() -> None:
    macs = {
        height: sum(op.macs for op in space().graph.operations(at(height)))
        for height in (24, 20, 16, 13)
    }
    assert list(macs.values()) == sorted(macs.values(), reverse=True)
    assert macs[13] < 0.4 * macs[24]


@pytest.mark.parametrize("policy", [LayerPolicy(), LayerPolicy(8, 8)], ids=["float", "integer"])
def test_its_kernels_are_those_that_run(policy: LayerPolicy, tmp_path: Path) -> None:
    candidate = at(16, policy)
    ops = space().graph.operations(candidate)
    model = fold_batch_norm(realise(_elastic(), candidate))
    if policy.is_quantized:
        model = simulate_quantization(model, ops, [images(8)])
    export_onnx(model, ops, (images(1),), tmp_path / "model.onnx")
    running = Counter(k.key for k in signatures(load_runtime().kernels(tmp_path / "model.onnx")))
    known = lower(ops, quantized_tensors(ops))
    assert Counter(k.key for k in known) == running
    (resize,) = (k for k in known if k.op_type == "Resize")
    session = load_runtime().load(kernel_model(resize))
    assert session.run([images(1).numpy()])[0].shape == (1, 3, 16, 12)


def test_as_a_plain_kernel_it_runs_too() -> None:
    ops = space().graph.operations(at(16))
    kernels = load_lowering("plain")(ops, frozenset())
    (resize,) = (kernel for _, kernel in kernels if "Resize" in kernel.op)
    session = load_runtime().load(kernel_model(resize))
    assert session.run([images(1).numpy()])[0].shape == (1, 3, 16, 12)


def test_what_cannot_be() -> None:
    with pytest.raises(RequestError, match="is 17; use one of 24, 20, 16, 13"):
        space().graph.operations(at(17))
    with pytest.raises(RequestError, match="resizes nothing there"):
        space().graph.operations(Candidate(architecture={"resolution:stem": 16}))
    with pytest.raises(RequestError, match="largest first"):
        Resize((16, 24))


@pytest.mark.parametrize(
    ("height", "heights"),
    [
        (8, ()),
        (16, ()),
        (24, (20, 16)),
        (32, (28, 24, 20, 16)),
        (33, (32, 28, 24, 20)),
        (64, (60, 56, 52, 48, 44, 40, 36, 32)),
        (96, (80, 64, 48)),
        (224, (208, 192, 176, 160, 144, 128, 112)),
    ],
)
def test_usual_heights(height: int, heights: tuple[int, ...]) -> None:
    assert usual_heights(height) == heights
