"""How many directions of a matrix are signal: empirical variational Bayes, solved analytically."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar

Floats = npt.NDArray[np.float64]


def vbmf_rank(matrix: torch.Tensor) -> int:
    """Rank of the signal in a matrix of signal and noise; 0 when there is none, or no number.

    The global solution of empirical variational Bayes matrix factorisation (Nakajima, Sugiyama,
    Babacan & Tomioka 2013, JMLR 14): a singular value counts where it exceeds a threshold that
    depends on the shape and on the noise, whose variance minimises the free energy.

    Args:
        matrix: shape ``(rows, columns)``.
    """
    values = matrix.detach().double()
    if not bool(torch.isfinite(values).all()):
        return 0
    if values.shape[0] > values.shape[1]:
        values = values.T
    rows, columns = values.shape
    squares = torch.linalg.eigvalsh(values @ values.T).flip(0).clamp_min(0).numpy()
    if squares[0] <= 0:
        return 0
    alpha = rows / columns
    tau = 2.5129 * math.sqrt(alpha)
    threshold = (1 + tau) * (1 + alpha / tau)
    noise = _noise(squares, columns, alpha, threshold)
    return int((squares > columns * noise * threshold).sum())


def _noise(squares: Floats, columns: int, alpha: float, threshold: float) -> float:
    """The noise's variance per entry."""
    rows = len(squares)
    most = max(0, min(math.ceil(rows / (1 + alpha)) - 1, rows) - 1)  # values that can be signal
    high = float(squares.sum()) / (rows * columns)
    tail = squares[most + 1 :] if most + 1 < rows else squares[-1:]
    low = max(float(tail[0]) / (columns * threshold), float(tail.mean()) / columns, 1e-12 * high)
    if low >= high:
        return high
    found = minimize_scalar(
        lambda log: _free_energy(math.exp(log), squares, columns, alpha, threshold),
        bounds=(math.log(low), math.log(high)),
        method="bounded",
    )
    return math.exp(float(found.x))


def _free_energy(
    noise: float, squares: Floats, columns: int, alpha: float, threshold: float
) -> float:
    """Up to constants and a factor."""
    x = np.maximum(squares, 1e-16 * squares[0]) / (columns * noise)
    total = float((x - np.log(x)).sum())
    x = x[x > threshold]
    rest = x - (1 + alpha)
    tau = 0.5 * (rest + np.sqrt(np.maximum(rest**2 - 4 * alpha, 0)))
    return total + float((np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau).sum())
