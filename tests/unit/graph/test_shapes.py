"""Remembered shapes are those that torch gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.elastic.space import ElasticSpace
from autocompress.graph.shapes import ShapeMemory


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, 2, 1)
        self.b = nn.Conv2d(16, 32, 3, 1, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        x = torch.max_pool2d(torch.relu(self.b(x)), 2)
        left, right = x.chunk(2, 1)
        x = torch.cat([right, left], 1)
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


def test_the_same_operations_with_and_without_memory() -> None:
    space = ElasticSpace.from_model(_Net(), (torch.randn(1, 3, 16, 16),))
    rng = np.random.default_rng(0)
    candidates = [space.decode(space.sample(rng)) for _ in range(20)]
    remembered = [space.graph.operations(c) for c in candidates]
    known = len(space.graph.shapes)
    assert known > 0
    again = [space.graph.operations(c) for c in candidates]
    assert len(space.graph.shapes) == known
    fresh = []
    for candidate in candidates:
        space.graph.__dict__.pop("shapes")
        fresh.append(space.graph.operations(candidate))
    assert remembered == again == fresh


@pytest.mark.parametrize("channels", [4, 8])
def test_layers(channels: int) -> None:
    memory = ShapeMemory()
    x = torch.empty(1, channels, 9, 9, device="meta")
    settings = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    assert memory.layer(x, (6, channels, 3, 3), settings).shape == (1, 6, 5, 5)
    assert memory.layer(x, (6, channels, 3, 3), settings | {"stride": (1, 1)}).shape[2] == 9
    assert memory.layer(torch.empty(1, 3, 7, device="meta"), (2, 7), {}).shape == (1, 3, 2)
    assert len(memory) == 3
