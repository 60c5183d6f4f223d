"""A transformer encoder that classifies texts, from token ids.

Token and position embeddings, pre-norm blocks of self-attention and feed-forward (as BERT, Devlin
et al. 2019, arXiv:1810.04805, with the norms in front, Xiong et al. 2020, arXiv:2002.04745), the
mean over real tokens, and a linear classifier. Choices: how many blocks there are (dropped from the
end), the heads and the feed-forward width of every block, and the compression of every layer, the
token embedding included. Rows of ids may have any length up to that of the data; id 0 is padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from autocompress.errors import RequestError

WIDTH = 64
HEADS = 4
FEED_FORWARD = 256
BLOCKS = 3
DROPOUT = 0.1
#: Added to the attention scores of padding: as good as minus infinity, but finite, so that a row
#: of nothing but padding stays a number.
_HIDDEN = -1e4


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shape ``(n, length, width)`` kept; ``mask`` ``(n, 1, 1, length)`` is added to scores."""
        query, key, value = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, length, width)`` to ``(n, heads, length, width / heads)``."""
        heads = torch.unflatten(x, 2, (-1, self.head_width))
        return heads.transpose(1, 2)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``; a candidate may skip it."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width)
        )
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Shape ``(n, length, width)`` kept; ``mask`` ``(n, 1, 1, length)`` is added to scores."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x


class TextEncoder(nn.Module):
    """The space's largest network.

    Args:
        vocabulary: token ids are below it.
        length: tokens in a row at the most.
        classes: outputs.
    """

    def __init__(self, vocabulary: int, length: int, classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Parameter(torch.empty(length, WIDTH))
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS, FEED_FORWARD) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, classes)
        for table in (self.tokens.weight, self.positions):
            nn.init.normal_(table, 0.0, 0.05)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids ``(n, length)``, 0 where there is none, to logits ``(n, classes)``."""
        real = ids.ne(0).to(torch.float32)
        mask = (1.0 - real).unsqueeze(1).unsqueeze(1) * _HIDDEN
        x = self.dropout(self.tokens(ids) + self.positions[: ids.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        shares = real / real.sum(1, keepdim=True).clamp(min=1.0)
        pooled = (self.norm(x) * shares.unsqueeze(2)).sum(1)
        logits: torch.Tensor = self.classifier(pooled)
        return logits


def largest(*, input_shape: Sequence[int], num_classes: int, vocabulary: int | None) -> nn.Module:
    """The network that contains every candidate.

    Args:
        input_shape: ``(length,)``, the largest number of tokens in a row.
        num_classes: outputs.
        vocabulary: token ids are below it; None when the inputs are no token ids.

    Raises:
        RequestError: the inputs are no token ids.
    """
    if len(input_shape) != 1 or vocabulary is None:
        raise RequestError(
            "space text_encoder needs token ids (integers from 0) of shape (length,); its inputs "
            f"would be {'floats, bytes or negative' if vocabulary is None else 'integers'}, of "
            f"shape {tuple(input_shape)}"
        )
    return TextEncoder(vocabulary, int(input_shape[0]), num_classes)
