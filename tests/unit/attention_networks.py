"""Small networks that write attention in different ways; each has heads of 4 channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from autocompress.elastic.space import without_unusable_widths
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from tests.unit.networks import randomise

WIDTH, HEADS, LENGTH, FEATURES = 12, 3, 5, 6


class Torch(nn.Module):
    """``nn.MultiheadAttention``."""

    def __init__(self, batch_first: bool = True, weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.batch_first, self.weights = batch_first, weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x if self.batch_first else x.transpose(0, 1)
        y: torch.Tensor = self.attention(rows, rows, rows, need_weights=self.weights)[0]
        return y if self.batch_first else y.transpose(0, 1)


class Packed(nn.Module):
    """One layer for queries, keys and values, divided as image models do it."""

    def __init__(self, divide: str = "unbind") -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=divide != "chunk")
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.divide = divide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, channels = x.shape
        if self.divide == "unbind":
            packed = self.qkv(x).reshape(n, length, 3, HEADS, channels // HEADS)
            q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        elif self.divide == "interleaved":  # heads outside, queries, keys and values inside
            packed = self.qkv(x).reshape(n, length, HEADS, 3, channels // HEADS)
            q, k, v = packed.permute(3, 0, 2, 1, 4)
        else:
            q, k, v = (
                t.view(n, length, HEADS, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
            )
        weights = ((q * (channels // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        out: torch.Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, length, channels))
        return out


class Separate(nn.Module):
    """A layer each, scores divided and masked, as text models do it."""

    def __init__(self, mask: str = "") -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dense, self.dropout = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS)
        if self.mask == "added":
            scores = scores + (x[:, None, None, :, 0] > 0).float() * -10000.0
        elif self.mask == "filled":
            hidden = (x[:, :, 0] > 0)[:, None, None].expand(-1, HEADS, LENGTH, -1)
            scores = scores.masked_fill(hidden, -1e9)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        heads = torch.matmul(weights, v).permute(0, 2, 1, 3).contiguous()
        out: torch.Tensor = self.dense(heads.view(*heads.shape[:2], -1))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], HEADS, -1).permute(0, 2, 1, 3)


class OneCall(nn.Module):
    """``scaled_dot_product_attention`` with what it can be told."""

    def __init__(self, how: str = "") -> None:
        super().__init__()
        self.queries, self.pairs = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.project, self.how = nn.Linear(WIDTH, WIDTH), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        keys = x[:, ::2] if self.how == "fewer keys" else x
        q = self.queries(x).view(n, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        pairs = self.pairs(keys).view(n, -1, 2, HEADS, WIDTH // HEADS)
        k, v = pairs.transpose(1, 3).unbind(2)
        mask = None
        if self.how == "boolean":
            mask = (x[:, :, 0] > -1)[:, None, None, :]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.how == "causal",
            scale=0.3 if self.how == "scale" else None,
        )  # fmt: skip
        y = y.transpose(1, 2)
        # with view, as nanoGPT joins heads
        y = y.contiguous().view(n, -1, WIDTH) if self.how == "viewed" else y.flatten(2)
        out: torch.Tensor = self.project(y)
        return out


class Biased(Packed):
    """Scores of each head are shifted by a tensor of its own, as relative positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, LENGTH, LENGTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, channels = x.shape
        packed = self.qkv(x).reshape(n, length, 3, HEADS, channels // HEADS)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) + self.bias).softmax(dim=-1)
        out: torch.Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, length, channels))
        return out


class Turned(Packed):
    """Queries and keys are changed between their layer and their product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, channels = x.shape
        packed = self.qkv(x).reshape(n, length, 3, HEADS, channels // HEADS)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q.cos() @ k.sin().transpose(-2, -1)).softmax(dim=-1)
        out: torch.Tensor = self.proj((weights @ v).transpose(1, 2).reshape(n, length, channels))
        return out


class Shared(nn.Module):
    """All heads of the queries look at one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH // HEADS)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).view(x.shape[0], -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        k, v = (t.unsqueeze(1).expand(-1, HEADS, -1, -1) for t in self.kv(x).chunk(2, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: torch.Tensor = self.proj(y)
        return out


class Watched(Packed):
    """Its packed layer is read by something else too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x) + self.qkv(x).mean(-1, keepdim=True)
        return out


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(WIDTH), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.inner(self.norm(x))
        return out


class Encoder(nn.Module):
    """Two blocks between an embedding and the mean over positions, for ``(n, 5, 6)``."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.Sequential(block(), block())
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.embed(x)).mean(1))
        return out


def _layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True, activation="gelu")


#: Attention that can be followed; name to a block.
FOLLOWED: Mapping[str, Callable[[], nn.Module]] = {
    "torch": lambda: Residual(Torch()),
    "torch, positions first": lambda: Residual(Torch(batch_first=False)),
    "torch, with weights": lambda: Residual(Torch(weights=True)),
    "torch's encoder layer": _layer,
    "packed, unbind": lambda: Residual(Packed()),
    "packed, chunk": lambda: Residual(Packed("chunk")),
    "packed, interleaved": lambda: Residual(Packed("interleaved")),
    "separate": lambda: Residual(Separate()),
    "separate, mask added": lambda: Residual(Separate("added")),
    "separate, mask filled": lambda: Residual(Separate("filled")),
    "one call": lambda: Residual(OneCall()),
    "one call, viewed": lambda: Residual(OneCall("viewed")),
    "one call, scale": lambda: Residual(OneCall("scale")),
    "one call, boolean mask": lambda: Residual(OneCall("boolean")),
    "one call, causal": lambda: Residual(OneCall("causal")),
    "one call, fewer keys": lambda: Residual(OneCall("fewer keys")),
}

#: Attention that must be left alone; name to a block and a part of the reason.
LEFT: Mapping[str, tuple[Callable[[], nn.Module], str]] = {
    "a bias a head": (lambda: Residual(Biased()), "shifted by a tensor of its own"),
    "changed on the way": (lambda: Residual(Turned()), "straight from a linear layer"),
    "shared keys": (lambda: Residual(Shared()), "share channels"),
    "read by others": (lambda: Residual(Watched()), "read by others"),
}


def network(block: Callable[[], nn.Module]) -> nn.Module:
    """An encoder of such blocks with weights that hide no mistake."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomise(Encoder(block))
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_bias, 0, 0.2)
    return model


def example(batch: int = 1) -> torch.Tensor:
    """Random inputs, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, LENGTH, FEATURES, generator=generator)


@cache
def graph(name: str) -> ModelGraph:
    """A captured network of :data:`FOLLOWED`; read only."""
    return without_unusable_widths(inspect_model(network(FOLLOWED[name]), (example(),)))
