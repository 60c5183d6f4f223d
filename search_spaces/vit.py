"""A vision transformer for images of 8 to 224 pixels.

Patches of 1 to 16 pixels (7 to 14 of them along the shorter side, 7 being the least) are embedded
by a convolution and given learned positions; pre-norm blocks of self-attention and a feed-forward
network follow (Dosovitskiy et al. 2021, arXiv:2010.11929), then the mean over positions instead of
a class token (Beyer et al. 2022, arXiv:2205.01580) and a linear classifier.

The largest network has an embedding of 192 and heads of 32 channels: 6 blocks for images of up to
64 pixels (2.7 million parameters), 12 for larger ones (5.5 million). Choices: the depth of each of
two stages (blocks dropped from its end), the number of heads and the feed-forward width of each
block, and the compression of every layer. Depths and widths alone make about 10^10 networks of up
to 6 blocks and 10^20 of up to 12; with int8 and int4 layers and ranks, 10^50 and 10^98. The
embedding keeps its width, since the positions are a parameter of no layer. The smallest network has
no block left: patches, their mean, and the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from autocompress.errors import RequestError

EMBEDDING = 192
HEAD_DIM = 32
FEED_FORWARD = 4 * EMBEDDING
#: Patch sizes, and the fewest patches along the shorter side.
PATCHES, LEAST_SIDE = (16, 8, 4, 2, 1), 7
#: Blocks in both stages together, for images up to so many pixels and for larger ones.
SMALL_IMAGE, SMALL_DEPTH, LARGE_DEPTH = 64, 6, 12
SMALLEST, LARGEST = 8, 224


class Attention(nn.Module):
    """Self-attention with heads of a fixed width, so that a head less is a narrower layer."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, length, channels)``, shape kept."""
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        heads = F.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.project(heads.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added; may be skipped."""

    def __init__(self, channels: int, head_dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = Attention(channels, head_dim)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.contract = nn.Linear(hidden, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, length, channels)``, shape kept."""
        x = x + self.attention(self.norm1(x))
        out: torch.Tensor = x + self.contract(self.act(self.expand(self.norm2(x))))
        return out


class VisionTransformer(nn.Module):
    """The space's largest network.

    Args:
        channels: input channels.
        height: of the images; rows that do not fill a patch are padded with zeros.
        width: of the images.
        classes: outputs.
    """

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        patch = patch_size(min(height, width))
        self.padding = (-width % patch, -height % patch)
        length = -(-height // patch) * -(-width // patch)
        self.embed = nn.Conv2d(channels, EMBEDDING, patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros(1, length, EMBEDDING))
        depth = SMALL_DEPTH if max(height, width) <= SMALL_IMAGE else LARGE_DEPTH
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    *(Block(EMBEDDING, HEAD_DIM, FEED_FORWARD) for _ in range(depth // 2))
                )
                for _ in range(2)
            )
        )
        self.norm = nn.LayerNorm(EMBEDDING, eps=1e-6)
        self.classifier = nn.Linear(EMBEDDING, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to logits ``(n, classes)``."""
        right, bottom = self.padding
        if right or bottom:
            x = F.pad(x, (0, right, 0, bottom))
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.classifier(self.norm(self.stages(x)).mean(1))
        return logits


def patch_size(side: int) -> int:
    """Pixels of a patch: the largest that leaves at least seven along ``side`` pixels."""
    return next(patch for patch in PATCHES if side // patch >= LEAST_SIDE)


def largest(*, input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """The network that contains every candidate.

    Args:
        input_shape: ``(channels, height, width)``, 8 to 224 pixels each way.
        num_classes: outputs.

    Raises:
        RequestError: the input is no image, too small or too large.
    """
    sides = tuple(int(n) for n in input_shape[1:])
    if len(sides) != 2 or min(sides) < SMALLEST or max(sides) > LARGEST:
        raise RequestError(
            f"space vit needs images (channels, height, width) of {SMALLEST} to {LARGEST} pixels; "
            f"its inputs would have the shape {tuple(input_shape)}"
        )
    return VisionTransformer(int(input_shape[0]), *sides, num_classes)
