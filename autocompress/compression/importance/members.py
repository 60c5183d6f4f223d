"""The tensors through which a channel group goes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from autocompress.graph.model_graph import ChannelGroup, GroupMember


def readers(module: nn.Module, group: ChannelGroup) -> Iterator[tuple[GroupMember, nn.Module]]:
    """The convolutions and linear layers that read the group's channels."""
    for member in group.members:
        layer = module.get_submodule(member.module)
        if member.role == "in" and isinstance(layer, nn.Conv2d | nn.Linear):
            yield member, layer


def gathered(values: torch.Tensor, member: GroupMember) -> torch.Tensor:
    """Values of a member's own channels, summed for each channel of the group.

    Args:
        values: shape ``(..., the member's channels)``.
        member: whose channels they are.

    Returns:
        Shape ``(..., channels)``.
    """
    return values[..., torch.from_numpy(member.indices)].sum(-1)


def weights_by_channel(
    module: nn.Module, group: ChannelGroup
) -> Iterator[tuple[GroupMember, torch.Tensor]]:
    """Each member with its weights by its own channels, shape ``(its channels, n)``.

    Grouped convolutions are left out as readers: their input channels are not an axis.
    """
    for member in group.members:
        layer = module.get_submodule(member.module)
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, torch.Tensor):
            continue
        axis = 1 if member.role == "in" else 0
        if axis >= weight.dim() or (axis and isinstance(layer, nn.Conv2d) and layer.groups > 1):
            continue
        moved = weight.detach().float().transpose(0, axis)
        yield member, moved.flatten(1) if moved.dim() > 1 else moved.unsqueeze(1)


def normalised_mean(found: list[torch.Tensor], channels: int) -> torch.Tensor | None:
    """The mean of several scores, each first divided by its mean over the channels.

    None when there are none: no member has what was looked for.
    """
    if not found:
        return None
    total = torch.zeros(channels)
    for score in found:
        total += score / score.mean().clamp_min(1e-12)
    return total / len(found)
