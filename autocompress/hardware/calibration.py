"""From kernel times to a network's time: the formula, and its coefficients from whole networks.

``T = run + a*sum((1-n)*hot + n*max(hot, ctx)) + n*(nW*W + nA*A) + l*(bW*W + bA*A) + c*N + t0`` in
microseconds, with ``n = 1/(1 + (N0/F)^q)`` and ``l = 1/(1 + (F0/F)^p)``: kernels alone are hot, a
network's kernels are so only as long as its footprint F (weights and the largest activation) fits
the core's own cache (N0), and it goes to memory where it does not fit the last cache (F0) either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from autocompress.errors import ProfileError

Floats = npt.NDArray[np.float64]
_MB = 1e6
#: How far the data may pull each coefficient from its prior, in its own unit.
_SCALES = {
    "a": 0.05,
    "near_weight_us_per_mb": 4.0,
    "near_activation_us_per_mb": 4.0,
    "weight_us_per_mb": 4.0,
    "activation_us_per_mb": 3.0,
    "kernel_us": 0.1,
    "t0_us": 0.5,
}
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
    """Coefficients of the formula; the defaults know of one cache only.

    Attributes:
        a: factor on kernel times.
        weight_us_per_mb: microseconds a megabyte of weights, once out of the last cache.
        activation_us_per_mb: the same for activations.
        kernel_us: microseconds a kernel on top of its own time.
        t0_us: microseconds a run on top of the empty run.
        cache_mb: footprint at which a network is half out of the last cache.
        cache_power: how sharp that is.
        networks: whole networks it was fitted to; 0 for none.
        near_weight_us_per_mb: microseconds a megabyte of weights, once out of the nearest cache.
        near_activation_us_per_mb: the same for activations.
        near_mb: footprint at which a network is half out of the nearest cache; None where one cache
            is all that is known.
        near_power: how sharp that is.
    """

    a: float = 1.0
    weight_us_per_mb: float = 7.4
    activation_us_per_mb: float = 4.1
    kernel_us: float = 0.06
    t0_us: float = 0.3
    cache_mb: float = 16.0
    cache_power: float = 8.0
    networks: int = 0
    near_weight_us_per_mb: float = 0.0
    near_activation_us_per_mb: float = 0.0
    near_mb: float | None = None
    near_power: float | None = None

    def outside(self, footprint_bytes: Floats) -> Floats:
        """``l``: how far a network of that footprint is out of the last cache, 0..1."""
        return _outside(footprint_bytes, self.cache_mb, self.cache_power)

    def outside_near(self, footprint_bytes: Floats) -> Floats:
        """``n``: how far it is out of the nearest cache, 0..1."""
        near_mb = self.cache_mb if self.near_mb is None else self.near_mb
        power = self.cache_power if self.near_power is None else self.near_power
        return _outside(footprint_bytes, near_mb, power)

    def memory_us(self, weights: Floats, activations: Floats, footprint_bytes: Floats) -> Floats:
        """Microseconds that weights and activations of so many bytes add."""
        near = self.near_weight_us_per_mb * weights + self.near_activation_us_per_mb * activations
        far = self.weight_us_per_mb * weights + self.activation_us_per_mb * activations
        return np.asarray(
            (self.outside_near(footprint_bytes) * near + self.outside(footprint_bytes) * far) / _MB,
            dtype=np.float64,
        )

    def total_us(self, sums: Floats, run_us: float) -> Floats:
        """Microseconds of networks given as rows of :class:`NetworkSums`, shape ``(n, 6)``."""
        hot, ctx, weights, activations, kernels, largest = sums.T
        footprint = weights + largest
        share = self.outside_near(footprint)
        inner = (1.0 - share) * hot + share * ctx
        memory = self.memory_us(weights, activations, footprint)
        return np.asarray(
            run_us + self.t0_us + self.a * inner + memory + self.kernel_us * kernels,
            dtype=np.float64,
        )

    def to_json(self) -> dict[str, float | int]:
        """Plain values, those that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

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


#: Where a fit starts, and where it stays as far as the data say nothing.
PRIOR = Calibration(
    near_weight_us_per_mb=4.0, near_activation_us_per_mb=2.0, near_mb=1.0, near_power=2.0
)


def _outside(footprint_bytes: Floats, cache_mb: float, power: float) -> Floats:
    share = np.maximum(footprint_bytes, 1.0) / (cache_mb * _MB)
    return np.asarray(1.0 / (1.0 + share**-power), dtype=np.float64)


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
        prior: :data:`PRIOR` when None.
    """
    start = prior or PRIOR
    if not sums:
        return start
    rows = np.array([as_row(s) for s in sums])
    truth = np.asarray(measured_us, dtype=np.float64)
    hot, ctx, weights, activations, kernels, largest = rows.T
    near, far = start.outside_near(weights + largest), start.outside(weights + largest)
    columns = np.stack(
        [
            (1.0 - near) * hot + near * ctx,
            near * weights / _MB,
            near * activations / _MB,
            far * weights / _MB,
            far * activations / _MB,
            kernels,
            np.ones_like(truth),
        ],
        axis=1,
    )
    names = list(_SCALES)
    centre = np.array([getattr(start, name) for name in names])
    scale = np.array(list(_SCALES.values()))
    target = truth - run_us - columns @ centre
    design = columns * scale / truth[:, None]
    ridge = _RIDGE**2 * np.eye(len(names))
    solved = np.linalg.solve(design.T @ design + ridge, design.T @ (target / truth))
    values = centre + scale * solved
    values[1:-1] = np.maximum(values[1:-1], 0.0)
    return replace(
        start, **{n: float(v) for n, v in zip(names, values, strict=True)}, networks=len(truth)
    )
