"""What is known of a model after capture, and what is left alone and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.graph.inspect import inspect_model
from tests.unit.networks import MobileNet, ResNet, example, graph, randomise


def test_layers() -> None:
    layer = graph(MobileNet).layers["blocks.1.body.3"]
    assert (layer.kind, layer.in_channels, layer.out_channels) == ("conv", 36, 36)
    assert (layer.kernel, layer.stride, layer.groups) == ((5, 5), (1, 1), 36)
    assert layer.is_depthwise
    assert not layer.is_grouped
    assert layer.output_shape == (1, 36, 8, 8)
    assert layer.macs == 36 * 64 * 25
    assert layer.parameters == 36 * 25


def test_layers_are_in_execution_order() -> None:
    found = graph(ResNet)
    calls = [str(n.target) for n in found.module.graph.nodes if n.op == "call_module"]
    assert list(found.layers) == [c for c in calls if c in found.layers]


def test_every_layer_belongs_to_a_group() -> None:
    for kind in (ResNet, MobileNet):
        assert set(graph(kind).group_of) == set(graph(kind).layers)


class Elsewhere(nn.Module):
    """A convolution, and something else with weights."""

    def __init__(self, other: nn.Module | None, call: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.weight = nn.Parameter(torch.randn(5, 8, 3, 3))
        self.other = other
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.call(self, self.conv(x))
        return out.flatten(2).mean(2)


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (
            Elsewhere(None, lambda m, y: F.conv2d(y, m.weight * 2)),
            "conv2d_1",
            "computed in the forward pass",
        ),
        (
            Elsewhere(nn.Conv1d(8, 4, 3), lambda m, y: m.other(y.flatten(2))),
            "other",
            "layers of kind conv1d are not compressed",
        ),
        (
            Elsewhere(nn.ConvTranspose2d(8, 4, 2, 2), lambda m, y: m.other(y)),
            "other",
            "layers of kind conv_transpose2d are not compressed",
        ),
        (
            Elsewhere(nn.Conv2d(8, 4, 2, padding="same"), lambda m, y: m.other(y)),
            "other",
            "padding 'same'",
        ),
        (
            Elsewhere(nn.Conv2d(8, 8, 3, padding=1), lambda m, y: m.other(m.other(y))),
            "other",
            "called 2 times with shared weights",
        ),
    ],
    ids=["computed", "conv1d", "transposed", "uneven padding", "shared"],
)
def test_what_is_left_alone_is_listed(model: nn.Module, name: str, reason: str) -> None:
    found = inspect_model(randomise(model), (example(),))
    assert [s.name for s in found.skipped if reason in s.reason] == [name]


def test_calls_with_shared_weights_are_counted() -> None:
    model = Elsewhere(nn.Conv2d(8, 8, 3, padding=1), lambda m, y: m.other(m.other(y)))
    layer = inspect_model(randomise(model), (example(),)).layers["other"]
    assert layer.calls == 2
    assert layer.macs == 2 * 8 * 36 * 72


def test_json_is_plain_and_complete() -> None:
    value = json.loads(json.dumps(graph(MobileNet).to_json()))
    assert set(value) == {"layers", "groups", "blocks", "skipped"}
    depthwise = next(v for v in value["layers"] if v["name"] == "blocks.0.body.3")
    assert depthwise["kind"] == "depthwise conv"
    assert depthwise["group"] == "blocks.0.body.0"
    head = next(g for g in value["groups"] if g["name"] == "head.1")
    assert head["rigid"] == "it is the model's output"
    assert [b["name"] for b in value["blocks"]] == ["blocks.1", "blocks.3", "blocks.4"]


def test_example_inputs_are_kept_with_batch_one() -> None:
    assert [tuple(x.shape) for x in graph(ResNet).example_inputs] == [(1, 3, 16, 16)]
