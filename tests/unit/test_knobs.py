"""Every knob moves what it claims to move, in estimates and in the files that are written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from autocompress.compression.quantization import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy, Scalar
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.export.packing.container import packed_size
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.memory import peak_memory_bytes
from autocompress.hardware.size import size_bytes
from tests.unit.networks import EVERYTHING, SPACES, example, space


@dataclass(frozen=True)
class Figures:
    """What is known of a candidate before it is built, and of its file."""

    size_bytes: int
    parameters: int
    macs: int
    peak_memory_bytes: int
    path: Path

    @property
    def file_bytes(self) -> int:
        return self.path.stat().st_size

    @property
    def packed_bytes(self) -> int:
        return packed_size(self.path)


@cache
def _elastic(name: str) -> ElasticModel:
    found = space(name)
    return ElasticModel(found.graph, found.techniques).eval()


@pytest.fixture
def figures(tmp_path: Path) -> _Measure:
    return _Measure(tmp_path)


class _Measure:
    """Estimates a candidate and writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, candidate: Candidate) -> Figures:
        found = space(name)
        ops = found.graph.operations(candidate)
        tensors = quantized_tensors(ops)
        model = fold_batch_norm(realise(_elastic(name), candidate))
        if any(op.weight_bits < 32 for op in ops):
            model = simulate_quantization(model, ops, [example(16, batch=8)])
        path = self.folder / f"{candidate.id}.onnx"
        written = export_onnx(model, ops, found.graph.example_inputs, path)
        return Figures(
            size_bytes(ops, tensors),
            sum(op.parameters for op in ops),
            sum(op.macs for op in ops),
            peak_memory_bytes(ops, tensors),
            written.path,
        )


def _all_layers(policy: LayerPolicy) -> Candidate:
    return Candidate(layers=dict.fromkeys(space("resnet").graph.layers, policy))


FLOAT = Candidate()


@pytest.mark.parametrize(
    ("bits", "activation_bits"),
    [((32, 16, 8, 4, 2), 32), ((8, 4, 2), 8)],
    ids=["weights only", "integers"],
)
def test_weight_bits(figures: _Measure, bits: tuple[int, ...], activation_bits: int) -> None:
    found = [figures("resnet", _all_layers(LayerPolicy(b, activation_bits))) for b in bits]
    for more, fewer in pairwise(found):
        assert fewer.size_bytes < more.size_bytes
        assert fewer.file_bytes < more.file_bytes
        assert fewer.packed_bytes < more.packed_bytes
        assert fewer.parameters == more.parameters
        assert fewer.macs == more.macs
    weights = sum(layer.parameters for layer in space("resnet").graph.layers.values())
    saved = found[0].file_bytes - found[-1].file_bytes
    assert saved > weights * (bits[0] - bits[-1]) / 8 * 0.75


def test_weight_bits_of_one_layer(figures: _Measure) -> None:
    layer = "layer3.1.conv1"
    count = space("resnet").graph.layers[layer].parameters
    full = figures("resnet", FLOAT)
    small = figures("resnet", Candidate(layers={layer: LayerPolicy(4, 32)}))
    assert full.file_bytes - small.file_bytes == pytest.approx(3.5 * count, rel=0.05)
    assert full.size_bytes - small.size_bytes == pytest.approx(3.5 * count, rel=0.05)


def test_activation_bits(figures: _Measure) -> None:
    """Integers between layers: smaller activations, at the price of scales in the file."""
    floats = figures("resnet", _all_layers(LayerPolicy(8, 32)))
    integers = figures("resnet", _all_layers(LayerPolicy(8, 8)))
    assert integers.peak_memory_bytes < 0.5 * floats.peak_memory_bytes
    assert integers.parameters == floats.parameters
    assert integers.macs == floats.macs
    tensors = quantized_tensors(space("resnet").graph.operations(_all_layers(LayerPolicy(8, 8))))
    assert len(tensors) > len(space("resnet").graph.layers)


def test_width(figures: _Measure) -> None:
    group = space("resnet").graph.groups["conv1"]
    found = [
        figures("resnet", Candidate(layers=dict.fromkeys(group.producers, LayerPolicy(width=w))))
        for w in (8, 6, 4)
    ]
    for wide, narrow in pairwise(found):
        assert narrow.size_bytes < wide.size_bytes
        assert narrow.file_bytes < wide.file_bytes
        assert narrow.packed_bytes < wide.packed_bytes
        assert narrow.parameters < wide.parameters
        assert narrow.macs < wide.macs
        assert narrow.peak_memory_bytes < wide.peak_memory_bytes


def test_rank(figures: _Measure) -> None:
    layer = "layer3.1.conv1"
    found = [
        figures("resnet", Candidate(layers={layer: LayerPolicy(rank=rank)}))
        for rank in (None, 12, 8, 4)
    ]
    for high, low in pairwise(found):
        assert low.size_bytes < high.size_bytes
        assert low.file_bytes < high.file_bytes
        assert low.parameters < high.parameters
        assert low.macs < high.macs


@pytest.mark.parametrize("precision", [(32, 32), (8, 8)], ids=["floats", "integers"])
def test_sparsity_makes_the_packed_file_smaller_and_nothing_else(
    figures: _Measure, precision: tuple[int, int]
) -> None:
    found = [
        figures("resnet", _all_layers(LayerPolicy(*precision, sparsity=share)))
        for share in (0.0, 0.5, 0.7, 0.85)
    ]
    for dense, sparse in pairwise(found):
        assert sparse.packed_bytes < 0.95 * dense.packed_bytes
        assert sparse.file_bytes == pytest.approx(dense.file_bytes, rel=1e-3)
        assert sparse.size_bytes == dense.size_bytes
        assert sparse.parameters == dense.parameters
        assert sparse.macs == dense.macs


@pytest.mark.parametrize(
    ("name", "choice", "values"),
    [
        ("resnet", "depth:layer1", (3, 2, 1, 0)),
        ("tiny_cnn", "depth:stages.2", (2, 1, 0)),
        ("tiny_cnn", "branch:stages.2.0.body", ("dense", "separable")),
        ("tiny_cnn", "kernel:stages.2.0.body.branches.separable.0", (5, 3)),
    ],
)
def test_architecture(
    figures: _Measure, name: str, choice: str, values: tuple[Scalar, ...]
) -> None:
    base = {c.name: c.options[0] for c in space(name).choices if c.kind == "architecture"}
    if choice.startswith("kernel:"):
        base["branch:stages.2.0.body"] = "separable"
    found = []
    for value in values:
        chosen = {k: v for k, v in {**base, choice: value}.items() if v is not None}
        found.append(figures(name, Candidate(architecture=chosen)))
    for more, less in pairwise(found):
        assert less.size_bytes < more.size_bytes
        assert less.file_bytes < more.file_bytes
        assert less.parameters < more.parameters
        assert less.macs < more.macs


def _offered(found: ElasticSpace) -> set[str]:
    """The policy fields that some gene of a space can set."""
    techniques = {t: t.choices(found.graph, EVERYTHING) for t in found.techniques}
    return {
        field
        for technique, choices in techniques.items()
        for choice in choices
        for value in choice.options
        for field in technique.settings(choice, value)
    }


@pytest.mark.parametrize("name", SPACES)
def test_every_field_of_a_policy_is_offered_or_known_not_to_be(name: str) -> None:
    """A knob that no gene turns is one that no search can use."""
    known = {field.name for field in fields(LayerPolicy)}
    assert known - _offered(space(name)) == set()


def test_the_full_model_is_its_own_baseline(figures: _Measure) -> None:
    found = space("mobilenet")
    full = figures("mobilenet", found.decode(found.original))
    model = fold_batch_norm(realise(_elastic("mobilenet"), Candidate()))
    assert full.parameters == sum(p.numel() for p in model.parameters())
    assert full.file_bytes > 4 * full.parameters
    assert torch.is_tensor(model(example(16)))
