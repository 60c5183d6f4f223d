"""Channel groups: who follows whom, with which multiplicity, and who must keep its width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.core.candidate import Candidate
from autocompress.elastic.space import without_unusable_widths
from autocompress.graph.capture import trace
from autocompress.graph.groups import find_groups
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ChannelGroup, GroupMember, ModelGraph
from tests.unit.networks import (
    Concatenated,
    Flattened,
    MobileNet,
    ResNet,
    example,
    graph,
    randomise,
)


def _member(group: ChannelGroup, module: str, role: str) -> GroupMember:
    return next(m for m in group.members if m.module == module and m.role == role)


def _sets(group: ChannelGroup) -> dict[str, set[str]]:
    return {
        role: {m.module for m in group.members if m.role == role} for role in ("out", "in", "norm")
    }


def test_a_residual_stage_is_one_group() -> None:
    group = graph(ResNet).groups["conv1"]
    assert group.channels == 8
    assert group.rigid is None
    assert group.producers == tuple(
        m.module for m in group.members if m.module.endswith(("conv1", "conv2"))
        and m.role == "out"
    )  # fmt: skip
    assert _sets(group) == {
        "out": {"conv1", "layer1.0.conv2", "layer1.1.conv2", "layer1.2.conv2"},
        "in": {
            "layer1.0.conv1", "layer1.1.conv1", "layer1.2.conv1",
            "layer2.0.conv1", "layer2.0.shortcut.0",
        },
        "norm": {"bn1", "layer1.0.bn2", "layer1.1.bn2", "layer1.2.bn2"},
    }  # fmt: skip


def test_inside_a_block_a_layer_is_on_its_own() -> None:
    group = graph(ResNet).groups["layer1.1.conv1"]
    assert _sets(group) == {
        "out": {"layer1.1.conv1"}, "in": {"layer1.1.conv2"}, "norm": {"layer1.1.bn1"}
    }  # fmt: skip


def test_depthwise_layers_follow_and_the_group_is_named_after_the_layer_before() -> None:
    group = graph(MobileNet).groups["blocks.1.body.0"]
    assert _sets(group)["out"] == {"blocks.1.body.0", "blocks.1.body.3"}
    assert _sets(group)["in"] == {"blocks.1.body.6"}
    assert group.channels == 36


def test_a_channel_becomes_several_features() -> None:
    member = _member(graph(Flattened).groups["conv"], "fc", "in")
    assert member.indices.shape == (8, 16)
    assert np.array_equal(member.indices, np.arange(128).reshape(8, 16))


def test_concatenation_moves_channels_and_reads_one_twice() -> None:
    found = graph(Concatenated).groups
    left = _member(found["left"], "join", "in").indices
    right = _member(found["right"], "join", "in").indices
    assert np.array_equal(left, np.stack([np.arange(6), np.arange(10, 16)], 1))
    assert np.array_equal(right, np.arange(6, 10)[:, None])


def test_members_cover_each_module_at_most_once() -> None:
    for kind in (ResNet, MobileNet, Concatenated, Flattened):
        for group in graph(kind).groups.values():
            for member in group.members:
                assert len(member.indices) == group.channels
                assert len(np.unique(member.indices)) == member.indices.size


class Grouped(nn.Module):
    """Groups, and depthwise with two outputs per channel."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 1)
        self.grouped = nn.Conv2d(channels, out, 3, groups=groups)
        self.last = nn.Conv2d(out, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(F.relu(self.grouped(F.relu(self.first(x)))))
        return y.mean((2, 3))


class Between(nn.Module):
    """Something between two convolutions of 8 channels."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.between = between
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.register_buffer("table", torch.rand(1, 8, 1, 1))
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.between(self, self.first(x)))
        return y.mean((2, 3))


def _shuffled(_: Any, y: torch.Tensor) -> torch.Tensor:
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _swapped(_: Any, y: torch.Tensor) -> torch.Tensor:
    return torch.cat([y[:, 4:], y[:, :4]], 1)


def _usable(model: nn.Module) -> ModelGraph:
    return without_unusable_widths(inspect_model(randomise(model), (example(),)))


@pytest.mark.parametrize(
    ("model", "group", "reason"),
    [
        (Between(lambda m, y: F.relu(y)), "last", "the model's output"),
        (Grouped(8, 8, 2), "first", "grouped is a grouped convolution"),
        (Grouped(8, 8, 2), "grouped", "grouped is a grouped convolution"),
        (Grouped(8, 16, 8), "grouped", "grouped is a grouped convolution"),
        (Between(lambda m, y: y.view(-1, 8, 64).view(-1, 8, 8, 8)), "first", "fewer channels"),
        (Between(lambda m, y: nn.functional.group_norm(y, 2, m.scale.flatten())), "first", ""),
        (Between(lambda m, y: y * m.scale), "first", "free parameter"),
        (Between(lambda m, y: y * m.table), "first", "fewer channels"),
        (Between(_shuffled), "first", ""),
        (Between(_swapped), "first", "irregular order"),
        (Between(lambda m, y: y.flip(1)), "first", "reordered"),
        (Between(lambda m, y: y + y.roll(1, 1)), "first", "reordered"),
    ],
    ids=[
        "output", "before groups", "groups", "multiplier", "baked view", "group norm", "parameter",
        "buffer", "channel shuffle", "swapped halves", "flipped", "rolled",
    ],
)  # fmt: skip
def test_rigid_groups_say_why(model: nn.Module, group: str, reason: str) -> None:
    found = _usable(model)
    rigid = found.groups[group].rigid
    assert rigid is not None
    assert reason in rigid
    assert any(s.name == group and rigid in s.reason for s in found.skipped)


def test_a_width_that_works_stays_free() -> None:
    model = Between(lambda m, y: y * torch.sigmoid(y.mean((2, 3), keepdim=True)))
    assert _usable(model).groups["first"].rigid is None


def test_a_graph_without_surprises_is_the_same_object() -> None:
    found = graph(ResNet)
    assert without_unusable_widths(found) is found


class Odd(nn.Module):
    """A batch norm over positions that counts as one over features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.norm(self.first(x[:, 0])))
        return y.mean(1)


def test_batch_norm_over_positions_does_not_follow_features() -> None:
    found = _usable(Odd())
    assert "reordered" in (found.groups["first"].rigid or "")
    assert [op.kind for op in found.operations(Candidate())].count("batch_norm") == 1


def test_a_failing_analysis_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def build_dependency(self, *_: Any) -> None:
            raise ZeroDivisionError("integer division or modulo by zero")

    module = trace(Flattened(), (example(),))
    monkeypatch.setattr("torch_pruning.DependencyGraph", Failing)
    found, skipped = find_groups(module, (example(),))
    assert "ZeroDivisionError: integer division" in skipped[0].reason
    assert {s.name: s.reason for s in skipped[1:]} == {
        name: f"width kept: {group.rigid}" for name, group in found.items()
    }


def test_what_can_be_followed_locally_survives_a_failing_analysis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def build_dependency(self, *_: Any) -> None:
            raise ZeroDivisionError("integer division or modulo by zero")

    expected = graph(MobileNet).groups
    monkeypatch.setattr("torch_pruning.DependencyGraph", Failing)
    found, _ = find_groups(graph(MobileNet).module, (example(),))
    assert {n: g.channels for n, g in found.items()} == {n: g.channels for n, g in expected.items()}


class Windows(nn.Module):
    """A convolution, its result cut into windows of 2x2 and put together again, another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images of 8x8 to 4 maps."""
        y = self.first(x)
        cut = y.reshape(y.shape[0], 8, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1)
        whole = cut.permute(0, 5, 1, 3, 2, 4).reshape(y.shape[0], 8, 8, 8)
        out: torch.Tensor = self.second(whole)
        return out


def test_channels_are_not_followed_through_windows() -> None:
    graph = inspect_model(Windows(), (torch.randn(1, 3, 8, 8),))
    assert all(group.rigid for group in graph.groups.values())
    assert "reshape" in (graph.groups["first"].rigid or "")
    assert "cut into windows" in next(s.reason for s in graph.skipped if "widths" in s.name)
