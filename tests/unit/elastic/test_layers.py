"""Slices, cropped kernels and narrowed norms, each against what it stands for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.elastic.layers import (
    ElasticLayer,
    ElasticNorm,
    Slice,
    crop,
    shrunk,
    sliced_norm,
)
from tests.unit.networks import randomise


def test_the_first_channels_are_a_view_and_others_are_gathered() -> None:
    tensor = torch.arange(12.0).reshape(4, 3)
    first = Slice(torch.tensor([0, 1]))
    assert first(tensor, 0).data_ptr() == tensor.data_ptr()
    assert torch.equal(first(tensor, 1), tensor[:, :2])
    some = Slice(torch.tensor([0, 2]))
    assert torch.equal(some(tensor, 1), tensor[:, [0, 2]])
    assert Slice(None)(tensor, 0) is tensor


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 5, padding=2),
        nn.Conv2d(4, 6, 5, stride=2, padding=2, bias=False),
        nn.Conv2d(4, 6, 5, padding=4, dilation=2),
        nn.Conv2d(4, 4, 5, padding=2, groups=4),
        nn.Conv2d(4, 6, 5, padding="same"),
    ],
    ids=["plain", "strided", "dilated", "depthwise", "same"],
)
@pytest.mark.parametrize("kernel", [3, 1])
def test_a_cropped_kernel_is_the_full_one_with_a_border_of_zeros(
    conv: nn.Conv2d, kernel: int
) -> None:
    layer = ElasticLayer(conv)
    layer.kernel = kernel
    masked = torch.zeros_like(conv.weight)
    edge = (5 - kernel) // 2
    inside = slice(edge, edge + kernel)
    masked[:, :, inside, inside] = conv.weight.detach()[:, :, inside, inside]
    x = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = conv._conv_forward(x, masked, conv.bias)
        found = layer(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_crop_is_a_view_of_the_centre() -> None:
    weight = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert crop(weight, 3).flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    assert crop(weight, 5).data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("kernel", [5, 3])
def test_a_smaller_depthwise_kernel_begins_as_the_centre_and_learns(kernel: int) -> None:
    generator = torch.Generator().manual_seed(3)
    conv = nn.Conv2d(6, 6, 7, padding=3, groups=6)
    layer = ElasticLayer(conv)
    assert {name: tuple(d.shape) for name, d in layer.shrinking.items()} == {
        "7": (25, 25), "5": (9, 9),
    }  # fmt: skip
    layer.kernel = kernel
    assert torch.equal(layer.sliced().weight, crop(conv.weight, kernel))
    layer(torch.randn(2, 6, 9, 9, generator=generator)).pow(2).sum().backward()
    reached = {name for name, d in layer.shrinking.items() if d.grad is not None and d.grad.any()}
    assert reached == ({"7"} if kernel == 5 else {"7", "5"})


def test_learned_kernels_against_the_matrices_of_the_paper() -> None:
    """By hand: ``centre @ (I + difference)``, from 7 to 5, and from what comes out to 3."""
    generator = torch.Generator().manual_seed(4)
    layer = ElasticLayer(nn.Conv2d(6, 6, 7, padding=3, groups=6, bias=False))
    for difference in layer.shrinking.values():
        nn.init.normal_(difference, 0, 0.3, generator=generator)
    weight = layer.weight.detach()
    five = weight[:, 0, 1:6, 1:6].reshape(6, 25) @ (torch.eye(25) + layer.shrinking["7"])
    three = five.reshape(6, 5, 5)[:, 1:4, 1:4].reshape(6, 9) @ (torch.eye(9) + layer.shrinking["5"])
    layer.kernel = 5
    before = layer.sliced().state
    assert torch.allclose(layer.sliced().weight, five.reshape(6, 1, 5, 5), atol=1e-5)
    layer.kernel = 3
    assert torch.allclose(layer.sliced().weight, three.reshape(6, 1, 3, 3), atol=1e-5)
    layer.out = Slice(torch.tensor([4, 1]))
    assert torch.allclose(layer.sliced().weight, three.reshape(6, 1, 3, 3)[[4, 1]], atol=1e-5)
    layer.reset()
    assert torch.equal(layer.sliced().weight, weight)
    layer.kernel = 5
    with torch.no_grad():
        layer.shrinking["7"].add_(1)
    assert layer.eval().sliced().state != before


@pytest.mark.parametrize(
    ("conv", "steps"),
    [
        (nn.Conv2d(4, 4, 5, groups=4), {"5"}),
        (nn.Conv2d(4, 4, 9, groups=4), {"7", "5"}),
        (nn.Conv2d(4, 4, 3, groups=4), set()),
        (nn.Conv2d(4, 4, 6, groups=4), set()),
        (nn.Conv2d(4, 4, (1, 7), groups=4), set()),
        (nn.Conv2d(4, 4, 7), set()),
        (nn.Conv2d(4, 4, 7, groups=2), set()),
    ],
    ids=["5", "9", "3", "even", "oblong", "dense", "grouped"],
)
def test_which_kernels_are_transformed(conv: nn.Conv2d, steps: set[str]) -> None:
    assert set(ElasticLayer(conv).shrinking) == steps


def test_a_kernel_that_nothing_is_learned_about_is_the_centre() -> None:
    weight = torch.arange(2 * 81.0).reshape(2, 1, 9, 9)
    assert torch.equal(shrunk(weight, 3, {}), crop(weight, 3))


def test_a_narrow_layer_is_the_full_one_restricted() -> None:
    conv = nn.Conv2d(6, 8, 3, padding=1)
    layer = ElasticLayer(conv)
    layer.out, layer.into = Slice(torch.tensor([1, 5])), Slice(torch.tensor([0, 1, 2, 3]))
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        padded = torch.cat([x, torch.zeros(2, 2, 5, 5)], 1)
        assert torch.allclose(layer(x), conv(padded)[:, [1, 5]], atol=1e-6)
        layer.reset()
        assert torch.equal(layer(padded), conv(padded))


def test_a_narrow_depthwise_layer_has_as_many_groups() -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    layer = ElasticLayer(conv)
    layer.out = layer.into = Slice(torch.arange(4))
    x = torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        assert torch.allclose(layer(x[:, :4]), conv(x)[:, :4], atol=1e-6)
    assert layer.sliced().groups == 4


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(6), (4, 6, 3, 3)),
        (nn.BatchNorm2d(6, affine=False), (4, 6, 3, 3)),
        (nn.BatchNorm1d(6), (4, 6)),
    ],
    ids=["2d", "no parameters", "1d"],
)
@pytest.mark.parametrize("kept", [[0, 1, 2], [1, 4]], ids=["first", "some"])
def test_a_narrow_norm_is_the_full_one_restricted(
    norm: nn.Module, shape: tuple[int, ...], kept: list[int]
) -> None:
    randomise(norm)
    elastic = ElasticNorm(norm).eval()
    elastic.kept = Slice(torch.tensor(kept))
    x = torch.randn(shape)
    with torch.no_grad():
        expected = norm(x)[:, kept]
        assert torch.allclose(elastic(x[:, kept]), expected, atol=1e-5)
        assert torch.allclose(elastic.realised().eval()(x[:, kept]), expected, atol=1e-5)


def test_a_narrow_layer_norm_normalises_what_is_left() -> None:
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight)
    elastic = ElasticNorm(norm).eval()
    elastic.kept = Slice(torch.arange(4))
    x = torch.randn(3, 4)
    expected = nn.functional.layer_norm(x, (4,), norm.weight[:4], norm.bias[:4])
    assert torch.allclose(elastic(x), expected)
    assert torch.allclose(elastic.realised()(x), expected)
    elastic.kept = Slice(None)
    assert torch.equal(elastic(torch.ones(2, 6)), norm(torch.ones(2, 6)))


def test_a_group_norm_keeps_its_width() -> None:
    elastic = ElasticNorm(nn.GroupNorm(2, 6))
    elastic.kept = Slice(torch.arange(4))
    with pytest.raises(TypeError, match="GroupNorm"):
        elastic(torch.randn(2, 4, 3, 3))
    with pytest.raises(TypeError, match="Identity is not a norm"):
        sliced_norm(nn.Identity(), Slice(None))


@pytest.mark.parametrize(
    ("kept", "updates", "moved"),
    [(None, True, True), (None, False, False), (torch.arange(3), True, False)],
    ids=["full width", "held", "narrow"],
)
def test_only_the_full_width_moves_the_statistics(
    kept: torch.Tensor | None, updates: bool, moved: bool
) -> None:
    norm = nn.BatchNorm2d(6)
    elastic = ElasticNorm(norm).train()
    elastic.kept, elastic.updates = Slice(kept), updates
    x = 3 + torch.randn(8, 6 if kept is None else 3, 4, 4)
    found = elastic(x)
    assert bool(norm.running_mean.any()) is moved  # type: ignore[union-attr]
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    expected = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    assert torch.allclose(found, expected, atol=1e-4)
