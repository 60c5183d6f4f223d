"""Re-estimation of batch norm statistics, which every change of weights invalidates."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def reestimate_batch_norm(model: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Replace running statistics by plain averages over ``batches``.

    Without it, a sub-network with inherited weights is useless (Yu & Huang 2019, Universally
    Slimmable Networks, arXiv:1903.05134, section 3.3).

    Args:
        model: changed in place; its training mode is restored.
        batches: inputs, each ``(n, ...)`` with n > 1.

    Returns:
        Whether the model has any batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for inputs in batches:
            model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
    return True
