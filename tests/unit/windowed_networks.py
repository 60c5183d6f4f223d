"""Small networks that cut images into windows, for tests."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torchvision.models import swin_transformer as swin

from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from tests.unit.networks import randomise

#: Height and width of the images; maps of 6 by 6 are three windows, of 3 by 3 are padded to two.
PIXELS = 12
VERSIONS = ("v1", "v2")


def tiny_swin(version: str) -> nn.Module:
    """torchvision's, in two stages of two blocks, one of them with shifted windows, and one."""
    second = version == "v2"
    torch.manual_seed(0)
    model = swin.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=[2, 2],
        num_classes=5, block=swin.SwinTransformerBlockV2 if second else swin.SwinTransformerBlock,
        downsample_layer=swin.PatchMergingV2 if second else swin.PatchMerging,
    )  # fmt: skip
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, swin.ShiftedWindowAttention):
                module.relative_position_bias_table = (
                    None if second else nn.Parameter(torch.randn(9, module.num_heads))
                )
    return randomise(model)


def images(batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random images, shape ``(batch, 3, 12, 12)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, PIXELS, PIXELS, generator=generator)


@cache
def swin_graph(version: str) -> ModelGraph:
    """The captured :func:`tiny_swin`; read only."""
    return inspect_model(tiny_swin(version), (images(),))
