"""The Hessian of a loss, looked at in random directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


def hessian_diagonals(
    loss: torch.Tensor, weights: Sequence[torch.Tensor], generator: torch.Generator
) -> Iterator[list[torch.Tensor | None]]:
    """Estimates of the Hessian's diagonal, one after the other, as many as are asked for.

    Each is ``v * (H v)`` for one vector ``v`` of random signs over all weights at once, whose
    expectation is the diagonal of ``H`` (Hutchinson 1990, doi:10.1080/03610919008812866; Bekas,
    Kokiopoulou, Saad 2007, doi:10.1016/j.apnum.2007.01.003); its sum over a weight estimates the
    trace of that weight's block. The loss's graph is held until the iterator is dropped.

    Args:
        loss: a scalar, computed with gradients enabled.
        weights: what it is differentiated by; any shapes.
        generator: of the signs.

    Yields:
        For each weight a tensor of its shape; None where the loss does not depend on it.

    Raises:
        RuntimeError: the loss has no second derivatives.
    """
    with torch.enable_grad():
        first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    used = [(i, gradient) for i, gradient in enumerate(first) if gradient is not None]
    while True:
        signs = [
            torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) * 2 - 1 for w in weights
        ]
        products = torch.autograd.grad(
            [gradient for _, gradient in used],
            [weights[i] for i, _ in used],
            [signs[i] for i, _ in used],
            retain_graph=True,
        )
        found: list[torch.Tensor | None] = [None] * len(weights)
        for (i, _), product in zip(used, products, strict=True):
            found[i] = signs[i] * product
        yield found
