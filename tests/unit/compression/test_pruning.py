"""Structured pruning: which widths are offered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.pruning import Pruning, width_options
from autocompress.core.capabilities import Capabilities
from tests.unit.networks import MobileNet, graph


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


@pytest.mark.parametrize(
    ("channels", "step", "unit", "expected"),
    [
        (64, 16, 16, (64, 48, 32, 16)),
        (48, 8, 12, (48, 24)),  # multiples of both
        (36, 16, 12, (36, 24, 12)),  # none but all: heads alone count
        (32, 1, 32, (32,)),
    ],
)
def test_widths_of_heads(channels: int, step: int, unit: int, expected: tuple[int, ...]) -> None:
    assert width_options(channels, step, unit) == expected
