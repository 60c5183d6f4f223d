"""Every built-in space at a size that tests can afford, and inputs that fit it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from tests.unit.networks import randomise

VOCABULARY, LENGTH = 300, 12
_SHAPES: dict[str, dict[str, Any]] = {
    "mobile_cnn": {"input_shape": (3, 32, 32)},
    "resnet": {"input_shape": (3, 16, 16)},
    "text_encoder": {"input_shape": (LENGTH,), "vocabulary": VOCABULARY},
    "tiny_cnn": {"input_shape": (3, 16, 16)},
    "vit": {"input_shape": (3, 16, 16)},
}
_FINE = Capabilities(channel_step=4, rank_step=4, stores_packed=True)


@cache
def small_space(name: str) -> ElasticSpace:
    """The space with all default techniques in fine steps, and weights that hide no mistake."""
    made = load_space(
        name, num_classes=10, techniques=make_techniques(None), capabilities=_FINE, **_SHAPES[name]
    )
    randomise(made.graph.module)
    generator = torch.Generator().manual_seed(1)
    for module in made.graph.module.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return made


def small_input(name: str, batch: int, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    """Images, or rows of ids of which each but the first ends in padding, of another length."""
    generator = torch.Generator().manual_seed(seed)
    if name != "text_encoder":
        return torch.randn(batch, *_SHAPES[name]["input_shape"], generator=generator)
    ids = torch.randint(1, VOCABULARY, (batch, length), generator=generator)
    for i, row in enumerate(ids):
        row[max(1, length - i) :] = 0
    return ids
