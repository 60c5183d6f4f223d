"""Operations say of a candidate what its realised model is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model, node_shapes
from autocompress.graph.layers import kernel_padding
from autocompress.graph.operations import part_names
from autocompress.graph.ops import Op
from tests.unit.networks import (
    SPACES,
    Concatenated,
    Flattened,
    Perceptron,
    ResNet,
    example,
    graph,
    randomise,
    space,
)


def _counted_macs(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return int(counter.get_total_flops()) // 2


def _agrees(model: fx.GraphModule, ops: tuple[Op, ...], x: torch.Tensor) -> None:
    shapes = node_shapes(model, (x,))
    nodes = {node.name: node for node in model.graph.nodes}
    for op in ops[:-1]:
        assert shapes[op.name] == op.shape, op.name
        if op.layer is not None:
            assert str(nodes[op.name].target) == op.layer
            assert tuple(model.get_submodule(op.layer).weight.shape) == op.weight_shape  # type: ignore[arg-type]
    calls = [n.name for n in model.graph.nodes if n.op == "call_module"]
    layers = [n for n in calls if not isinstance(_module(model, nodes[n]), nn.Dropout)]
    assert [op.name for op in ops if op.layer is not None] == layers
    assert sum(op.parameters for op in ops) == sum(p.numel() for p in model.parameters())
    assert sum(op.macs for op in ops) == _counted_macs(model, x)


def _module(model: fx.GraphModule, node: fx.Node) -> nn.Module:
    return model.get_submodule(str(node.target))


@pytest.mark.parametrize("name", SPACES)
def test_equal_the_realised_model(name: str) -> None:
    found = space(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    rng = np.random.default_rng(11)
    genomes = [found.original, *(found.sample(rng) for _ in range(6))]
    for genome in genomes:
        candidate = found.decode(genome)
        model = fold_batch_norm(realise(elastic, candidate))
        _agrees(model, found.graph.operations(candidate), example(16, batch=1))


@pytest.mark.parametrize("kind", [ResNet, Concatenated, Flattened])
def test_full_models(kind: type[nn.Module]) -> None:
    found = graph(kind)
    ops = found.operations(Candidate())
    size = found.example_inputs[0].shape[-1]
    assert sum(op.macs for op in ops) == _counted_macs(found.module, example(size, batch=1))
    assert sum(op.macs for op in ops) == sum(layer.macs for layer in found.layers.values())


def test_linear_layers() -> None:
    found = inspect_model(randomise(Perceptron(48)), (example(4),))
    ops = found.operations(Candidate(layers={"layers.1": LayerPolicy(rank=4)}))
    assert [(op.kind, op.layer, op.weight_shape, op.macs, op.parameters) for op in ops] == [
        ("input", None, (), 0, 0),
        ("flatten", None, (), 0, 0),
        ("linear", "layers.1.0", (4, 48), 192, 192),
        ("linear", "layers.1.1", (32, 4), 128, 160),
        ("relu", None, (), 0, 0),
        ("linear", "layers.4", (24, 32), 768, 792),
        ("relu", None, (), 0, 0),
        ("linear", "layers.6", (5, 24), 120, 125),
        ("output", None, (), 0, 0),
    ]


def test_operations_form_a_graph() -> None:
    for name in SPACES:
        found = space(name)
        rng = np.random.default_rng(3)
        for _ in range(5):
            ops = found.graph.operations(found.decode(found.sample(rng)))
            assert (ops[0].kind, ops[-1].kind) == ("input", "output")
            seen: set[str] = set()
            for op in ops:
                assert set(op.inputs) <= seen
                assert op.inputs or op.kind == "input"
                seen.add(op.name)
            assert len(seen) == len(ops)


def test_names_do_not_depend_on_the_candidate() -> None:
    found = space("resnet")
    full = {op.name for op in found.graph.operations(Candidate())}
    rng = np.random.default_rng(5)
    for _ in range(5):
        names = {op.name for op in found.graph.operations(found.decode(found.sample(rng)))}
        assert {n for n in names - full if "_part" not in n} == set()


def test_policies_are_carried() -> None:
    policy = LayerPolicy(weight_bits=4, activation_bits=8, sparsity=0.5, rank=4)
    ops = graph(ResNet).operations(Candidate(layers={"layer1.0.conv1": policy}))
    halves = [op for op in ops if (op.layer or "").startswith("layer1.0.conv1.")]
    assert [op.layer for op in halves] == ["layer1.0.conv1.0", "layer1.0.conv1.1"]
    assert halves[0].name == part_names(halves[1].name, 2)[0]
    for op in halves:
        assert (op.weight_bits, op.activation_bits, op.sparsity) == (4, 8, 0.5)
        assert op.is_integer_layer
    assert not any(op.is_integer_layer for op in ops if op not in halves)


def test_a_skipped_block_leaves_its_input() -> None:
    found = graph(ResNet)
    ops = found.operations(Candidate(architecture={"depth:layer1": 0}))
    by_name = {op.name: op for op in ops}
    first = next(op for op in ops if op.layer == "layer2.0.conv1")
    assert by_name[first.inputs[0]].kind == "relu"
    assert by_name[by_name[first.inputs[0]].inputs[0]].layer == "conv1"


def test_a_batch_norm_gives_its_layer_a_bias() -> None:
    ops = graph(ResNet).operations(Candidate())
    assert all(op.attribute("bias") == 1 for op in ops if op.layer is not None)
    assert not any("norm" in op.kind for op in ops)


class Pieces(nn.Module):
    """Tuples of tensors: chunk and split, and a pool of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout2d(0.2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.conv(x).chunk(2, 1)
        y = nn.functional.max_pool2d(self.left(first), 3, 2, 1)
        y = y + nn.functional.avg_pool2d(self.drop(second), 2)
        out: torch.Tensor = self.fc(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))
        return out


def test_kinds_and_inputs_of_other_operators() -> None:
    found = inspect_model(randomise(Pieces()), (example(),))
    assert [
        (op.name, op.kind, op.inputs, op.shape[1:]) for op in found.operations(Candidate())
    ] == [
        ("x", "input", (), (3, 8, 8)),
        ("conv2d", "conv", ("x",), (8, 8, 8)),
        ("getitem", "aten.chunk", ("conv2d",), (4, 8, 8)),
        ("getitem_1", "aten.chunk", ("conv2d",), (4, 8, 8)),
        ("conv2d_1", "conv", ("getitem",), (4, 8, 8)),
        ("max_pool2d", "max_pool", ("conv2d_1",), (4, 4, 4)),
        ("avg_pool2d", "avg_pool", ("getitem_1",), (4, 4, 4)),
        ("add", "add", ("max_pool2d", "avg_pool2d"), (4, 4, 4)),
        ("adaptive_avg_pool2d", "global_avg_pool", ("add",), (4, 1, 1)),
        ("flatten", "flatten", ("adaptive_avg_pool2d",), (4,)),
        ("linear", "linear", ("flatten",), (5,)),
        ("output", "output", ("linear",), (5,)),
    ]
    pool = next(op for op in found.operations(Candidate()) if op.kind == "max_pool")
    assert pool.attributes == (("kernel", (3, 3)), ("padding", (1, 1)), ("stride", (2, 2)))


@pytest.mark.parametrize(
    ("conv", "kernel", "padding"),
    [
        (nn.Conv2d(1, 1, 5, padding=2), None, (2, 2)),
        (nn.Conv2d(1, 1, 5, padding=2), 3, (1, 1)),
        (nn.Conv2d(1, 1, 7, padding=3), 1, (0, 0)),
        (nn.Conv2d(1, 1, 5, padding=4, dilation=2), 3, (2, 2)),
        (nn.Conv2d(1, 1, 5, padding="same"), None, (2, 2)),
        (nn.Conv2d(1, 1, 5, padding="same"), 3, (1, 1)),
        (nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), None, (0, 3)),
        (nn.Conv2d(1, 1, 5, padding="valid"), None, (0, 0)),
    ],
    ids=["full", "5 to 3", "7 to 1", "dilated", "same", "same 5 to 3", "flat", "valid"],
)
def test_padding_keeps_the_output_size(
    conv: nn.Conv2d, kernel: int | None, padding: tuple[int, int]
) -> None:
    assert kernel_padding(conv, kernel) == padding
