"""Captured networks for contract tests."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from autocompress.elastic.space import without_unusable_widths
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph


@cache
def captured(network: type[nn.Module]) -> ModelGraph:
    """The graph of a network of random weights, the same every time, for images ``(3, 8, 8)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = network()
    return without_unusable_widths(inspect_model(made, (torch.zeros(1, 3, 8, 8),)))
