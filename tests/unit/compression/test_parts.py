"""Parts compute what the modules made of them compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.compression.parts import Part


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (Part("linear", torch.randn(5, 8), torch.randn(5)), (3, 8)),
        (Part("linear", torch.randn(5, 8)), (3, 2, 8)),
        (Part("conv", torch.randn(6, 4, 3, 3), torch.randn(6), (2, 1), (1, 0)), (2, 4, 9, 9)),
        (Part("conv", torch.randn(4, 4, 3, 3), dilation=(2, 2), padding=(2, 2)), (2, 4, 9, 9)),
        (Part("conv", torch.randn(6, 1, 3, 3), torch.randn(6), groups=6), (2, 6, 9, 9)),
        (Part("conv", torch.randn(6, 2, 1, 3), groups=3), (2, 6, 9, 9)),
    ],
    ids=["linear", "sequence", "strided", "dilated", "depthwise", "grouped"],
)
def test_a_module_of_its_own(part: Part, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    module = part.as_module()
    assert isinstance(module, nn.Linear if part.kind == "linear" else nn.Conv2d)
    with torch.no_grad():
        assert torch.equal(module(x), part(x))
        module.weight.zero_()
    assert bool(part.weight.any())
    assert (module.bias is None) == (part.bias is None)


def test_with_weight_keeps_everything_else() -> None:
    part = Part("conv", torch.randn(6, 4, 3, 3), torch.randn(6), (2, 2), (1, 1))
    other = part.with_weight(torch.zeros(6, 4, 3, 3))
    assert other.bias is part.bias
    assert (other.stride, other.padding, other.groups) == ((2, 2), (1, 1), 1)
    assert not other.weight.any()
