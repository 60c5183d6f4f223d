"""A module that holds several branches of which a candidate uses one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class OneOf(nn.Module):
    """Branches with the same input and the same output shape; a candidate keeps one of them.

    Until a candidate chooses, the branches' outputs are summed: that couples their output
    channels when the model is captured, and it is a valid network in itself.

    Args:
        branches: option name to module; the first is the canonical option. ``nn.Identity()``
            makes the other branches ones that a candidate may leave out.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(dict(branches))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of all branches; input and output shapes are the branches'."""
        outputs = [branch(x) for branch in self.branches.values()]
        total: torch.Tensor = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total
