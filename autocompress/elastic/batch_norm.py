"""Re-estimation of batch norm statistics, which every change of weights invalidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from autocompress.errors import DataError


def reestimate_batch_norm(model: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Replace running statistics by plain averages over ``batches``.

    Without it, a sub-network with inherited weights is useless (Yu & Huang 2019, Universally
    Slimmable Networks, arXiv:1903.05134, section 3.3).

    Args:
        model: changed in place; its training mode is restored.
        batches: inputs, each ``(n, ...)``; one with a single example joins the next.

    Returns:
        Whether the model has any batch norm.

    Raises:
        DataError: there are fewer than two examples.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    model.eval()
    seen = 0
    try:
        with torch.no_grad():
            for inputs in _in_groups(batches):
                if seen == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # cumulative average
                        norm.train()
                seen += len(inputs)
                model(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)
    if seen == 0:
        raise DataError("batch norm statistics need at least two examples to be taken from")
    return True


def _in_groups(batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The batches, each of two examples or more; a single last one is left out."""
    single: torch.Tensor | None = None
    for inputs in batches:
        joined = inputs if single is None else torch.cat([single, inputs])
        single = joined if len(joined) == 1 else None
        if single is None:
            yield joined
