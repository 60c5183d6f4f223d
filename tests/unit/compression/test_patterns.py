"""Patterns of zeros: exact counts, the right places, and layers that have none."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.patterns.block import Block
from autocompress.compression.patterns.n_of_m import NOfM
from autocompress.compression.patterns.registry import make_pattern
from autocompress.compression.patterns.unstructured import Unstructured
from autocompress.errors import RequestError
from tests.unit.networks import MobileNet, graph

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(
    st.integers(1, 7), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)
)
SHARES = st.floats(0, 0.999)


def _scores(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).abs()


@settings(deadline=None)
@given(SHAPES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_n_of_every_m_input_channels_stay(
    shape: tuple[int, ...], kept: int, more: int, seed: int
) -> None:
    of = kept + more
    scores = _scores(shape, seed)
    mask = NOfM(kept, of).mask(scores, 0.0)
    assert mask.shape == scores.shape
    channels = shape[1]
    by_channel = mask.movedim(1, -1).reshape(-1, channels)
    ranked = scores.movedim(1, -1).reshape(-1, channels)
    for start in range(0, channels, of):
        part = by_channel[:, start : start + of]
        assert bool((part.sum(1) == min(kept, part.shape[1])).all())
        values = ranked[:, start : start + of]
        least = torch.where(part == 1, values, torch.inf).amin(1)
        assert bool((torch.where(part == 0, values, -torch.inf).amax(1) <= least).all())
    zeros = (channels // of) * more + max(0, channels % of - kept)
    assert int((mask == 0).sum()) == zeros * (scores.numel() // channels)


@settings(deadline=None)
@given(SHAPES, st.integers(1, 4), st.integers(1, 4), SHARES, st.integers(0, 99))
def test_whole_blocks_are_zero(
    shape: tuple[int, ...], rows: int, columns: int, share: float, seed: int
) -> None:
    scores = _scores(shape, seed)
    mask = Block(rows, columns).mask(scores, share)
    assert mask.shape == scores.shape
    positions = mask.reshape(shape[0], shape[1], -1)
    means = scores.reshape(shape[0], shape[1], -1)
    lost: list[float] = []
    stay: list[float] = []
    for k in range(positions.shape[2]):
        for i in range(0, shape[0], rows):
            for j in range(0, shape[1], columns):
                block = positions[i : i + rows, j : j + columns, k]
                assert float(block.min()) == float(block.max())
                mean = float(means[i : i + rows, j : j + columns, k].mean())
                (stay if bool(block.any()) else lost).append(mean)
    blocks = ceil(shape[0] / rows) * ceil(shape[1] / columns) * positions.shape[2]
    assert len(lost) == round(share * blocks)
    if lost and stay:
        assert max(lost) <= min(stay) + 1e-6


def test_n_of_m_by_hand() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 9.0, 8.0], [5.0, 5.0, 5.0, 5.0, 1.0, 0.0]])
    assert NOfM(2, 4).mask(scores, 0.5).tolist() == [[0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert NOfM(1, 4).mask(scores, 0.75).tolist() == [[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0]]


def test_blocks_by_hand() -> None:
    scores = torch.tensor([[1.0, 1.0, 9.0, 0.0, 6.0], [8.0, 0.0, 2.0, 2.0, 0.0]])
    assert Block(1, 2).mask(scores, 0.5).tolist() == [[0, 0, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert Block(2, 1).mask(scores, 0.4).tolist() == [[1, 0, 1, 0, 1], [1, 0, 1, 0, 1]]


def test_each_kernel_position_has_groups_of_its_own() -> None:
    scores = torch.zeros(1, 4, 1, 2)
    scores[0, :, 0, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    scores[0, :, 0, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    mask = NOfM(2, 4).mask(scores, 0.5)
    assert mask[0, :, 0, 0].tolist() == [1, 1, 0, 0]
    assert mask[0, :, 0, 1].tolist() == [0, 0, 1, 1]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["unstructured", "2:4", "block:1x4", "block:4x1"]), st.integers(0, 99))
def test_patterns_follow_the_output_channels(name: str, seed: int) -> None:
    """Output channels in another order have their zeros in that order, whole blocks of them too."""
    scores = _scores((8, 8, 3, 3), seed)
    rows = 4 if name == "block:4x1" else 1
    blocks = torch.randperm(8 // rows, generator=torch.Generator().manual_seed(seed))
    order = (blocks[:, None] * rows + torch.arange(rows)).flatten()
    pattern = make_pattern(name)
    assert torch.equal(pattern.mask(scores, 0.5)[order], pattern.mask(scores[order], 0.5))


@pytest.mark.parametrize("name", ["unstructured", "2:4", "1:16", "block:1x4", "block:4x1"])
def test_names(name: str) -> None:
    assert make_pattern(name).name == name
    assert make_pattern(name) == make_pattern(name)
    hash(make_pattern(name))


@pytest.mark.parametrize("name", ["", "4:2", "2:2", "0:4", "block:1x1", "block:4", "2:4:8"])
def test_no_patterns(name: str) -> None:
    with pytest.raises(RequestError, match="use 'unstructured', 'N:M'"):
        make_pattern(name)


def test_layers_too_small_for_a_pattern() -> None:
    layers = graph(MobileNet).layers
    depthwise = next(layer for layer in layers.values() if layer.is_depthwise)
    dense = layers["blocks.0.body.0"]
    assert Unstructured().refusal(depthwise) is None
    for pattern in (NOfM(2, 4), Block(1, 4)):
        assert "1 input channels" in (pattern.refusal(depthwise) or "")
        assert pattern.refusal(dense) is None
    assert Block(4, 1).refusal(depthwise) is None
    assert "fewer than a block's 64 by 1" in (Block(64, 1).refusal(dense) or "")
