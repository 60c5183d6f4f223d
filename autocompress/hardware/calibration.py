"""From kernel times to a network's time: the formula, and its coefficients from whole networks.

``T = run + a*sum((1-l)*hot + l*max(hot, ctx)) + l*(bW*W + bA*A) + c*N + t0`` in microseconds with
``l = 1/(1 + (F0/F)^p)``: kernels alone are hot, a network's kernels are so only as long as its
footprint F (weights and the largest activation) fits the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from autocompress.errors import ProfileError

_MB = 1e6
#: How far the data may pull each coefficient from its prior, in its own unit.
_SCALES = {"a": 0.05, "weight_us_per_mb": 4.0, "activation_us_per_mb": 3.0, "kernel_us": 0.1}
_T0_SCALE = 0.5
_RIDGE = 0.02


@dataclass(frozen=True, slots=True)
class NetworkSums:
    """What the formula needs of one network.

    Attributes:
        hot_us: sum of the kernels' hot times.
        ctx_us: sum of the larger of hot and ctx time, kernel by kernel.
        weight_bytes: of all kernels.
        activation_bytes: read and written by all kernels.
        kernels: how many there are.
        largest_activation_bytes: of any kernel.
    """

    hot_us: float
    ctx_us: float
    weight_bytes: float
    activation_bytes: float
    kernels: float
    largest_activation_bytes: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Coefficients of the formula; the defaults are the prior.

    Attributes:
        a: factor on kernel times.
        weight_us_per_mb: microseconds a megabyte of weights, once out of cache.
        activation_us_per_mb: the same for activations.
        kernel_us: microseconds a kernel on top of its own time.
        t0_us: microseconds a run on top of the empty run.
        cache_mb: footprint at which a network is half out of cache.
        cache_power: how sharp that is.
        networks: whole networks it was fitted to; 0 for the prior.
    """

    a: float = 1.0
    weight_us_per_mb: float = 7.4
    activation_us_per_mb: float = 4.1
    kernel_us: float = 0.06
    t0_us: float = 0.3
    cache_mb: float = 16.0
    cache_power: float = 8.0
    networks: int = 0

    def outside(self, footprint_bytes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``l``: how far a network of that footprint is out of cache, 0..1."""
        share = np.maximum(footprint_bytes, 1.0) / (self.cache_mb * _MB)
        return np.asarray(1.0 / (1.0 + share**-self.cache_power), dtype=np.float64)

    def total_us(self, sums: npt.NDArray[np.float64], run_us: float) -> npt.NDArray[np.float64]:
        """Microseconds of networks given as rows of :class:`NetworkSums`, shape ``(n, 6)``."""
        hot, ctx, weights, activations, kernels, largest = sums.T
        share = self.outside(weights + largest)
        inner = (1.0 - share) * hot + share * ctx
        moved = self.weight_us_per_mb * weights + self.activation_us_per_mb * activations
        return np.asarray(
            run_us + self.t0_us + self.a * inner + share * moved / _MB + self.kernel_us * kernels,
            dtype=np.float64,
        )

    def to_json(self) -> dict[str, float | int]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, float]) -> Calibration:
        """Rebuild from :meth:`to_json`'s value.

        Raises:
            ProfileError: a key is unknown or a value is no number.
        """
        names = {f.name for f in fields(cls)}
        for name, number in value.items():
            if name not in names or isinstance(number, bool) or not isinstance(number, int | float):
                raise ProfileError(f"calibration: {name} = {number!r} is not understood")
        return cls(**value)  # type: ignore[arg-type]


def as_row(sums: NetworkSums) -> list[float]:
    """The order that :meth:`Calibration.total_us` expects."""
    return [
        sums.hot_us,
        sums.ctx_us,
        sums.weight_bytes,
        sums.activation_bytes,
        sums.kernels,
        sums.largest_activation_bytes,
    ]


def fit(
    sums: Sequence[NetworkSums],
    measured_us: Sequence[float],
    run_us: float,
    prior: Calibration | None = None,
) -> Calibration:
    """Coefficients that minimise the relative error, by ridge regression towards the prior.

    Args:
        sums: one entry a network.
        measured_us: their measured times.
        run_us: time of a run without kernels.
        prior: where the coefficients stay as far as the data say nothing.
    """
    start = prior or Calibration()
    if not sums:
        return start
    rows = np.array([as_row(s) for s in sums])
    truth = np.asarray(measured_us, dtype=np.float64)
    hot, ctx, weights, activations, kernels, largest = rows.T
    share = start.outside(weights + largest)
    columns = np.stack(
        [
            (1.0 - share) * hot + share * ctx,
            share * weights / _MB,
            share * activations / _MB,
            kernels,
            np.ones_like(truth),
        ],
        axis=1,
    )
    names = ["a", "weight_us_per_mb", "activation_us_per_mb", "kernel_us", "t0_us"]
    centre = np.array([getattr(start, name) for name in names])
    scale = np.array([*_SCALES.values(), _T0_SCALE])
    target = truth - run_us - columns @ centre
    design = columns * scale / truth[:, None]
    ridge = _RIDGE**2 * np.eye(len(names))
    solved = np.linalg.solve(design.T @ design + ridge, design.T @ (target / truth))
    values = centre + scale * solved
    values[1:4] = np.maximum(values[1:4], 0.0)
    return replace(
        start, **{n: float(v) for n, v in zip(names, values, strict=True)}, networks=len(truth)
    )
