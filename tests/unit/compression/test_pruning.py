"""Structured pruning: which widths are offered, and which channels matter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.pruning import (
    Pruning,
    channel_importance,
    width_options,
)
from autocompress.core.capabilities import Capabilities
from autocompress.graph.inspect import inspect_model
from tests.unit.networks import BasicBlock, MobileNet, ResNet, example, graph


@pytest.mark.parametrize(
    ("channels", "step", "expected"),
    [
        (64, 16, (64, 48, 32, 16)),
        (128, 16, (128, 112, 96, 80, 64, 48, 32)),
        (16, 16, (16, 12, 8, 4)),
        (24, 16, (24, 18, 12, 6)),
        (10, 16, (10, 8, 6, 4, 2)),
        (3, 16, (3, 2)),
        (2, 16, (2,)),
        (1, 16, (1,)),
        (40, 16, (40, 32, 16)),
    ],
)
def test_widths(channels: int, step: int, expected: tuple[int, ...]) -> None:
    assert width_options(channels, step) == expected


@settings(deadline=None)
@given(st.integers(1, 2048), st.sampled_from([4, 8, 16, 32]))
def test_widths_are_multiples_and_never_wider(channels: int, step: int) -> None:
    widths = width_options(channels, step)
    assert widths[0] == channels
    assert list(widths) == sorted(set(widths), reverse=True)
    assert all(0 < w < channels for w in widths[1:])
    if channels >= 2 * step:
        assert all(w % step == 0 for w in widths[1:])
        assert len(widths) > 1


def test_one_gene_per_free_group() -> None:
    found = graph(MobileNet)
    choices = {c.name: c for c in Pruning().choices(found, Capabilities(channel_step=4))}
    free = {n for n, g in found.groups.items() if g.rigid is None}
    assert set(choices) == {f"width:{name}" for name in free}
    choice = choices["width:blocks.0.body.0"]
    assert Pruning().settings(choice, choice.options[0]) == {"width": None}
    assert Pruning().settings(choice, choice.options[1]) == {"width": choice.options[1]}


class Scaled(nn.Module):
    """A residual stage of 6 channels whose channel ``i`` matters ``i + 1`` times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1, bias=False)
        self.block = BasicBlock(6, 6)
        self.fc = nn.Linear(6, 4)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.ones_(module.weight)
            for conv in (self.stem, self.block.conv2):
                conv.weight.mul_(torch.arange(1.0, 7)[:, None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.block(torch.relu(self.stem(x))).mean((2, 3)))
        return out


def test_importance_follows_the_weights() -> None:
    found = inspect_model(Scaled().eval(), (example(),))
    importance = channel_importance(found, found.groups["stem"])
    assert importance.shape == (6,)
    assert importance.argsort().tolist() == [0, 1, 2, 3, 4, 5]


def test_no_member_dominates_by_its_scale() -> None:
    """Each member's squares are normalised to mean 1, so that the mean over members is 1."""
    for kind in (ResNet, MobileNet):
        found = graph(kind)
        for group in found.groups.values():
            if group.rigid is None:
                importance = channel_importance(found, group)
                assert float(importance.mean()) == pytest.approx(1.0, abs=1e-4)
                assert float(importance.min()) >= 0
