"""What a candidate keeps: nodes, channels and kernels; and what it may not ask for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerPolicy, Scalar
from autocompress.errors import RequestError
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.selection import select, skipped_blocks
from tests.unit.networks import Concatenated, Flattened, MobileNet, ResNet, example, graph, space


def _widths(found: ModelGraph, group: str, width: int) -> Candidate:
    policy = LayerPolicy(width=width)
    return Candidate(layers=dict.fromkeys(found.groups[group].producers, policy))


def test_the_empty_candidate_keeps_everything() -> None:
    found = graph(ResNet)
    selection = select(found, Candidate())
    assert selection.nodes == tuple(found.nodes)
    assert not selection.alias
    assert not selection.out_indices
    assert not selection.in_indices


@pytest.mark.parametrize(
    ("kind", "group", "width", "module", "inputs"),
    [
        (Flattened, "conv", 3, "fc", list(range(48))),
        (Concatenated, "left", 2, "join", [0, 1, 6, 7, 8, 9, 10, 11]),
        (Concatenated, "right", 1, "join", [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15]),
        (ResNet, "conv1", 5, "layer2.0.shortcut.0", [0, 1, 2, 3, 4]),
        (MobileNet, "blocks.0.body.0", 7, "blocks.0.body.6", list(range(7))),
    ],
    ids=["features", "concatenated twice", "concatenated", "residual", "depthwise"],
)
def test_kept_inputs(
    kind: type[nn.Module], group: str, width: int, module: str, inputs: list[int]
) -> None:
    found = graph(kind)
    selection = select(found, _widths(found, group, width))
    assert selection.in_indices[module].tolist() == inputs
    for producer in found.groups[group].producers:
        assert selection.out_indices[producer].tolist() == list(range(width))


def test_two_narrowed_groups_reach_one_layer() -> None:
    found = graph(Concatenated)
    both = Candidate(layers={"left": LayerPolicy(width=2), "right": LayerPolicy(width=1)})
    assert select(found, both).in_indices["join"].tolist() == [0, 1, 6, 10, 11]


def test_the_full_width_drops_nothing() -> None:
    found = graph(Concatenated)
    full = Candidate(layers={n: LayerPolicy(width=g.channels) for n, g in found.groups.items()})
    assert not select(found, full).out_indices


def test_depth_drops_the_last_blocks() -> None:
    found = graph(ResNet)
    candidate = Candidate(architecture={"depth:layer1": 1, "depth:layer2": 0})
    assert skipped_blocks(found, candidate) == (
        "layer1.1", "layer1.2", "layer2.1", "layer2.2"
    )  # fmt: skip
    selection = select(found, candidate)
    targets = {str(found.nodes[n].target) for n in selection.nodes}
    assert "layer1.0.conv2" in targets
    assert not {t for t in targets if t.startswith(("layer1.1", "layer1.2", "layer2.1"))}
    first, last = found.stages["layer1"][1], found.stages["layer1"][2]
    assert selection.resolve(last.output) == first.input


def test_nodes_stay_in_execution_order() -> None:
    found = space("tiny_cnn")
    order = {name: i for i, name in enumerate(found.graph.nodes)}
    rng = np.random.default_rng(0)
    for _ in range(5):
        nodes = select(found.graph, found.decode(found.sample(rng))).nodes
        assert [order[n] for n in nodes] == sorted(order[n] for n in nodes)


def test_one_branch_runs() -> None:
    found = space("tiny_cnn").graph
    for option, other in (("dense", "separable"), ("separable", "dense")):
        name = "stages.1.0.body"
        selection = select(found, Candidate(architecture={f"branch:{name}": option}))
        targets = {str(found.nodes[n].target) for n in selection.nodes}
        assert set(found.alternatives[name].layers[option]) <= targets
        assert not set(found.alternatives[name].layers[other]) & targets


@pytest.mark.parametrize(
    ("architecture", "shown"),
    [
        ({"depth:layer9": 1}, "no stage 'layer9'"),
        ({"depth:stages.0": 3}, r"is 3; it must be in 0\.\.2"),
        ({"depth:stages.0": -1}, "is -1"),
        ({"depth:stages.0": "two"}, "is 'two'"),
        ({"branch:stages.0": "dense"}, "no branches 'stages.0'"),
        ({"branch:stages.0.0.body": "fast"}, "is 'fast'; use one of dense, separable"),
        ({"kernel:nowhere": 3}, "no convolution 'nowhere'"),
        ({"kernel:classifier": 3}, "no convolution 'classifier'"),
        ({"kernel:stem.0": 5}, r"is 5; a kernel of \(3, 3\) can be cropped to 1, 3"),
        ({"kernel:stem.0": 2}, "is 2"),
        ({"kernel:stem.0": 0}, "is 0"),
        ({"kernel:stem.0": "3"}, "is '3'"),
        ({"colour:stem.0": 3}, "unknown architecture choice 'colour:stem.0'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_architecture(architecture: Mapping[str, Scalar], shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        select(space("tiny_cnn").graph, Candidate(architecture=architecture))


@pytest.mark.parametrize(
    ("layers", "shown"),
    [
        ({"nowhere": LayerPolicy()}, "'nowhere'; the model has no such layer"),
        ({"fc": LayerPolicy(width=3)}, "'fc' cannot be narrowed: it is the model's output"),
        ({"conv1": LayerPolicy(width=9)}, "width of 'conv1' is 9; the layer has 8 channels"),
        ({"layer1.0.conv2": LayerPolicy(width=4)}, "'conv1' is None; .* together"),
        (
            {"conv1": LayerPolicy(width=6), "layer1.0.conv2": LayerPolicy(width=4)},
            "'layer1.0.conv2' is 4, that of 'conv1' is 6",
        ),
    ],
    ids=["unknown", "rigid", "too wide", "follower alone", "follower differs"],
)
def test_bad_layers(layers: Mapping[str, LayerPolicy], shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        select(graph(ResNet), Candidate(layers=layers))


def test_a_kernel_without_padding_cannot_be_cropped() -> None:
    with pytest.raises(RequestError, match=r"'kernel:fc.0' is 1; padding \(0, 0\) is too small"):
        select(inspect_model(Unpadded(), (example(),)), Candidate(architecture={"kernel:fc.0": 1}))


class Unpadded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(x)
        return out
