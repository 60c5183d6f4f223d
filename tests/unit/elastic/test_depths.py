"""Stages keep what a network cannot do without."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import VisionTransformer

from autocompress.elastic.corners import smallest
from autocompress.elastic.depths import least_depths
from autocompress.elastic.space import ElasticSpace
from tests.unit.named_spaces import small_space
from tests.unit.networks import example, randomise, space


class Reader(nn.Module):
    """Two stages of blocks; a token, or all positions, answers."""

    def __init__(self, token: bool) -> None:
        super().__init__()
        self.token = token
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.answer = nn.Parameter(torch.randn(1, 1, 8))
        self.first = nn.Sequential(*(_Mixing() for _ in range(2)))
        self.second = nn.Sequential(*(_Mixing() for _ in range(2)))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.answer.expand(x.shape[0], -1, -1), x], 1)
        x = self.second(self.first(x))
        logits: torch.Tensor = self.head(x[:, 0] if self.token else x.mean(1))
        return logits


class _Mixing(nn.Module):
    """Every position is told the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = x + self.layer(x).mean(1, keepdim=True)
        return mixed


def _of(model: nn.Module, size: int = 8) -> ElasticSpace:
    return ElasticSpace.from_model(randomise(model), (example(size),), techniques=())


def _depths(found: ElasticSpace) -> dict[str, tuple[object, ...]]:
    return {c.name: c.options for c in found.choices if c.name.startswith("depth:")}


def test_a_token_that_answers_needs_a_block_that_it_reads_the_image_in() -> None:
    """The later stage keeps one, so that the earlier one need not."""
    assert _depths(_of(Reader(token=True))) == {"depth:first": (2, 1, 0), "depth:second": (2, 1)}


def test_a_mean_over_positions_needs_none() -> None:
    assert _depths(_of(Reader(token=False))) == {
        "depth:first": (2, 1, 0), "depth:second": (2, 1, 0)
    }  # fmt: skip


def test_torchvisions_transformer_with_a_fresh_head() -> None:
    """Its classifier is all zeros, so that the whole network says the same of everything, too."""
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 3, 2, 16, 32, num_classes=5).eval()
    found = ElasticSpace.from_model(model, (example(16),), techniques=())
    assert list(_depths(found).values()) == [(3, 2, 1)]
    assert list(smallest(found).architecture.values()) == [1]


def test_named_spaces_keep_theirs() -> None:
    for name in ("vit", "text_encoder", "resnet"):
        assert set(least_depths(small_space(name).graph).values()) == {0}
    assert set(least_depths(space("resnet").graph).values()) == {0}


def test_a_network_of_one_stage_keeps_a_block() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(_Mixing() for _ in range(3)))
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.blocks(x).mean(1))
            return logits

    found = ElasticSpace.from_model(Blocks().eval(), (torch.randn(1, 4, 8),), techniques=())
    assert list(_depths(found).values()) == [(3, 2, 1)]
