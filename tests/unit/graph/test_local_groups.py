"""Groups that are followed from layer to layer agree with the general analysis where both see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.elastic.space import without_unusable_widths
from autocompress.graph.inspect import inspect_model
from autocompress.graph.local_groups import local_groups
from autocompress.graph.model_graph import ChannelGroup, ModelGraph
from tests.unit.networks import MobileNet, Perceptron, ResNet, graph, randomise
from tests.unit.windowed_networks import VERSIONS, swin_graph


def _local(model: ModelGraph) -> dict[str, ChannelGroup]:
    return local_groups(model.module, model.example_inputs)


def _members(group: ChannelGroup) -> set[tuple[str, str]]:
    return {(m.module, m.role) for m in group.members}


def _captured(model: nn.Module, *shape: int) -> ModelGraph:
    torch.manual_seed(0)
    return inspect_model(randomise(model), (torch.randn(2, *shape),))


@pytest.mark.parametrize(
    "model",
    [graph(ResNet), graph(MobileNet), _captured(Perceptron(), 3, 4, 4)],
    ids=["residual", "depthwise", "linear"],
)
def test_what_both_can_follow_is_the_same(model: ModelGraph) -> None:
    found = _local(model)
    assert found.keys() == model.groups.keys()
    for name, group in model.groups.items():
        assert _members(found[name]) == _members(group)
        assert found[name].channels == group.channels
        assert (found[name].rigid is None) == (group.rigid is None)
        assert all(
            np.array_equal(m.indices.ravel(), np.arange(group.channels))
            for m in found[name].members
        )


class Branches(nn.Module):
    """An inverted bottleneck with channels that gate themselves, channels first or last."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.dense, self.layer_norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.last = nn.Conv2d(8, 4, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("one", torch.rand(1, 1, 1))
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.between(self, self.first(x)))
        return y.mean((2, 3))


def _excited(m: Any, y: torch.Tensor) -> torch.Tensor:
    y = m.depthwise(F.gelu(m.norm(y)))
    gate = m.excite(F.silu(m.squeeze(F.adaptive_avg_pool2d(y, 1))))
    return y * torch.sigmoid(gate)


def _last(m: Any, y: torch.Tensor) -> torch.Tensor:
    y = m.layer_norm(y.permute(0, 2, 3, 1))
    y = y + F.gelu(m.dense(y))
    return y.transpose(2, 3).transpose(1, 2)


def _twice(m: Any, y: torch.Tensor) -> torch.Tensor:
    return m.depthwise(F.relu(m.depthwise(y)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("between", "members"),
    [
        (lambda m, y: F.hardswish(y * 2.0 + 1.0), {"first": "out", "last": "in"}),
        (lambda m, y: y * m.one, {"first": "out", "last": "in"}),
        (_excited, {"first": "out", "norm": "norm", "depthwise": "out", "squeeze": "in",
                    "excite": "out", "last": "in"}),
        (_last, {"first": "out", "layer_norm": "norm", "dense": "out+in", "last": "in"}),
        (_twice, {"first": "out", "depthwise": "out", "last": "in"}),
    ],
    ids=["numbers", "one for all", "squeeze and excite", "channels last", "called twice"],
)  # fmt: skip
def test_channels_are_followed(between: Any, members: dict[str, str]) -> None:
    model = _captured(Branches(between), 3, 6, 6)
    group = _local(model)["first"]
    expected = {(name, role) for name, roles in members.items() for role in roles.split("+")}
    assert _members(group) == expected
    assert group.rigid is None
    usable = without_unusable_widths(_with(model, _local(model)))
    assert usable.groups["first"].rigid is None


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda m, y: y * m.scale, "a free parameter of the model"),
        (lambda m, y: m.grouped(y), "grouped is a grouped convolution"),
        (lambda m, y: y.view(y.shape[0], 2, 4, 6, 6).flatten(1, 2), "through view|reshape"),
        (lambda m, y: torch.cat([y[:, 4:], y[:, :4]], 1), "through slice"),
        (lambda m, y: y + y.flip(1), "through flip"),
        (lambda m, y: F.group_norm(y, 2), "through group_norm"),
        (lambda m, y: y.softmax(1), "through softmax"),
        (lambda m, y: y + y.mean(1, keepdim=True), "through mean"),
        (lambda m, y: torch.cat(y.chunk(2, 1), 1), "through chunk"),
    ],
    ids=["parameter", "groups", "view", "halves", "flip", "group norm", "softmax", "mean", "chunk"],
)
def test_what_is_not_followed_says_why(between: Any, reason: str) -> None:
    rigid = _local(_captured(Branches(between), 3, 6, 6))["first"].rigid
    assert rigid is not None
    assert any(part in rigid for part in reason.split("|"))


def test_channels_that_meet_strangers_stay() -> None:
    class Meets(Branches):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            y = y + x.flatten(2).mean(2)[:, :1, None, None].expand(-1, 8, -1, -1)
            return self.last(y).mean((2, 3))  # type: ignore[no-any-return]

    rigid = _local(_captured(Meets(None), 3, 6, 6))["first"].rigid
    assert rigid == "add combines its channels with others that are not followed"


def test_the_output_stays() -> None:
    found = _local(_captured(Branches(lambda m, y: y), 3, 6, 6))
    assert found["last"].rigid == "it is the model's output"


@pytest.mark.parametrize("version", VERSIONS)
def test_feed_forward_widths_of_windowed_networks(version: str) -> None:
    model = swin_graph(version)
    free = {name: group for name, group in model.groups.items() if group.rigid is None}
    blocks = ("features.1.0", "features.1.1", "features.3.0")
    assert {name: _members(group) for name, group in free.items()} == {
        f"{block}.mlp.0": {(f"{block}.mlp.0", "out"), (f"{block}.mlp.3", "in")} for block in blocks
    }
    assert without_unusable_widths(model) is model
    reasons = {skipped.name: skipped.reason for skipped in model.skipped}
    assert "cut into windows" in reasons["(channel widths between blocks)"]
    assert "each head's scores are shifted" in reasons["features.1.0.attn"]
    assert "no plain product" in reasons["features.1.1.attn"]
    assert all(name in reasons for name, group in model.groups.items() if group.rigid)
    assert ("features.1.0.attn.cpb_mlp.0" in reasons) == (version == "v2")


class Shuffled(nn.Module):
    """As in ShuffleNet, on whose channel shuffle the general analysis divides by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.first, self.depthwise = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.second, self.head = nn.Conv2d(6, 4, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = self.stem(x).chunk(2, 1)
        changed = self.second(self.depthwise(F.relu(self.first(changed))))
        y = torch.cat([kept, changed], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        out: torch.Tensor = self.head(y).mean((2, 3))
        return out


def test_inside_of_shuffled_branches() -> None:
    model = _captured(Shuffled(), 3, 8, 8)
    found = without_unusable_widths(_with(model, _local(model))).groups
    assert [name for name, group in found.items() if group.rigid is None] == ["first"]
    assert _members(found["first"]) == {("first", "out"), ("depthwise", "out"), ("second", "in")}


def _with(model: ModelGraph, groups: dict[str, ChannelGroup]) -> ModelGraph:
    """The model with these groups in place of its own."""
    return ModelGraph(model.module, model.example_inputs, model.layers, groups, model.blocks)
