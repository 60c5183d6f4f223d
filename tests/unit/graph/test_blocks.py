"""Which blocks can be skipped, and in which order."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.core.candidate import Candidate
from autocompress.graph.alternatives import OneOf
from autocompress.graph.inspect import inspect_model
from tests.unit.networks import (
    BasicBlock,
    Concatenated,
    MobileNet,
    ResNet,
    example,
    graph,
    space,
)


def test_resnet_stages() -> None:
    stages = {name: [b.name for b in blocks] for name, blocks in graph(ResNet).stages.items()}
    assert stages == {
        "layer1": ["layer1.0", "layer1.1", "layer1.2"],
        "layer2": ["layer2.1", "layer2.2"],
        "layer3": ["layer3.1", "layer3.2"],
    }
    block = graph(ResNet).stages["layer2"][0]
    assert block.layers == ("layer2.1.conv1", "layer2.1.conv2")


def test_runs_apart_in_one_module_are_stages_of_their_own() -> None:
    stages = {name: [b.name for b in blocks] for name, blocks in graph(MobileNet).stages.items()}
    assert stages == {"blocks.1": ["blocks.1"], "blocks.3": ["blocks.3", "blocks.4"]}


def test_no_blocks_without_an_identity() -> None:
    assert graph(Concatenated).blocks == []


class Around(nn.Module):
    """One block of 8 channels between a stem and a classifier."""

    def __init__(self, block: nn.Module, again: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.block = block
        self.again = again
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(F.relu(self.stem(x)))
        if self.again is not None:
            y = self.again(y)
        out: torch.Tensor = self.fc(y.mean((2, 3)))
        return out


class Block(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(F.relu(x))
        kept: dict[str, torch.Tensor] = {
            "added": x + y,
            "added and dropped": self.drop(x) + y,
            "added before relu": F.relu(x + y),
            "plain": y,
            "twice itself": y + y,
            "multiplied": x * y,
            "scaled": 0.5 * x + y,
            "concatenated": torch.cat([x[:, :4], y[:, 4:]], 1),
        }
        return kept[self.how]


@pytest.mark.parametrize(
    ("how", "skippable"),
    [
        ("added", True),
        ("added and dropped", True),
        ("added before relu", True),
        ("plain", False),
        ("twice itself", False),
        ("multiplied", False),
        ("scaled", False),
        ("concatenated", False),
    ],
)
def test_what_is_skippable(how: str, skippable: bool) -> None:
    found = inspect_model(Around(Block(how)), (example(),))
    assert [b.name for b in found.blocks] == (["block"] if skippable else [])


def test_blocks_of_the_model_itself_form_a_stage_with_a_name() -> None:
    found = inspect_model(Around(BasicBlock(8, 8), BasicBlock(8, 8)), (example(),))
    assert {n: [b.name for b in bs] for n, bs in found.stages.items()} == {
        "block": ["block", "again"]
    }


def test_a_block_that_changes_shape_is_not_skippable() -> None:
    found = inspect_model(Around(BasicBlock(8, 8, stride=2)), (example(),))
    assert found.blocks == []


def test_the_innermost_block_counts() -> None:
    found = inspect_model(Around(nn.Sequential(BasicBlock(8, 8))), (example(),))
    assert [b.name for b in found.blocks] == ["block.0"]


def test_branches() -> None:
    found = space("tiny_cnn").graph
    assert len(found.alternatives) == 9
    choice = found.alternatives["stages.1.0.body"]
    assert list(choice.branches) == ["dense", "separable"]
    assert choice.layers["dense"] == ("stages.1.0.body.branches.dense.0",)
    assert choice.layers["separable"] == (
        "stages.1.0.body.branches.separable.0",
        "stages.1.0.body.branches.separable.3",
    )
    assert {n: len(b) for n, b in found.stages.items()} == {
        "stages.0": 2, "stages.1": 2, "stages.2": 2
    }  # fmt: skip


def test_a_branch_may_be_the_input_itself() -> None:
    """Such a choice sums its branches, yet it is no residual block."""
    inner = nn.Conv2d(8, 8, 3, padding=1)
    found = inspect_model(Around(OneOf({"conv": inner, "none": nn.Identity()})), (example(),))
    assert found.blocks == []
    choice = found.alternatives["block"]
    assert choice.branches == {"conv": "conv2d_1", "none": "relu"}
    assert choice.layers == {"conv": ("block.branches.conv",), "none": ()}
    plain = found.operations(Candidate(architecture={"branch:block": "none"}))
    assert [op.layer for op in plain if op.layer] == ["stem", "fc"]


def test_inside_a_block_such_a_choice_leaves_the_block_skippable() -> None:
    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.choice = OneOf({"again": nn.Conv2d(8, 8, 1), "none": nn.Identity()})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = x + self.choice(self.conv(x))
            return y

    found = inspect_model(Around(Excited()), (example(),))
    assert [b.name for b in found.blocks] == ["block"]
    assert list(found.alternatives) == ["block.choice"]
