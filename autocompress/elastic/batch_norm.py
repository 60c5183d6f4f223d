"""Re-estimation of batch norm statistics, which every change of weights invalidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

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
    model.eval()
    held = in_groups(batches)
    first = next(held, None)
    if first is None:
        raise DataError("batch norm statistics need at least two examples to be taken from")
    try:
        with averaging(norms), torch.no_grad():
            for inputs in chain([first], held):
                model(inputs)
    finally:
        model.train(was_training)
    return True


@contextmanager
def averaging(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Forget the norms' statistics, then average over every batch that is run in this block.

    Each batch is normalised by its own statistics, as in training. Afterwards the norms are in
    evaluation mode.
    """
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def in_groups(batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The batches, each of two examples or more: one of a single example joins the next.

    A single last one is left out.
    """
    single: torch.Tensor | None = None
    for inputs in batches:
        joined = inputs if single is None else torch.cat([single, inputs])
        single = joined if len(joined) == 1 else None
        if single is None:
            yield joined
