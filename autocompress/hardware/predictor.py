"""The estimated latency of a candidate, with its error band, from its kernels' measured times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from autocompress.core.measurement import Estimate
from autocompress.errors import RequestError
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.calibration import Calibration, NetworkSums, as_row, fit
from autocompress.hardware.fallback import Fallback
from autocompress.hardware.local import LocalTable, profile_of
from autocompress.hardware.lowerings.registry import load_lowering
from autocompress.hardware.profile import HardwareProfile, Validation
from autocompress.hardware.sparsity_credit import SparsityCredit
from autocompress.measurement.kernels import KernelSignature


@dataclass(frozen=True, slots=True)
class KernelPrice:
    """What a kernel costs.

    Attributes:
        hot_us: microseconds, hot.
        ctx_us: microseconds, the larger of hot and ctx.
        error: how far it may be off, as a share; 0 for a measured row.
    """

    hot_us: float
    ctx_us: float
    error: float

    @property
    def measured(self) -> bool:
        """Whether it comes from a measured row."""
        return self.error == 0.0


def _credited(hot_us: float, ctx_us: float, error: float, speedup: float) -> KernelPrice:
    return KernelPrice(hot_us / speedup, max(hot_us, ctx_us) / speedup, error)


class LatencyPredictor:
    """Prices candidates on one device. Not safe for several threads at once.

    Args:
        profile: the device.
        local: where missing kernels are measured; None where the device is not at hand.
    """

    def __init__(self, profile: HardwareProfile, *, local: LocalTable | None = None) -> None:
        self.profile = profile
        self.local = local
        self.credit = SparsityCredit(profile.capabilities.sparsity_speedup)
        self.lower_by_op = self.credit.applied(load_lowering(profile.runtime.lowering))
        self.calibration = profile.calibration
        self.validation = profile.validation
        self._prices: dict[tuple[str, float], KernelPrice] = {}
        self._fallback: Fallback | None = None

    @classmethod
    def for_device(cls, profile: HardwareProfile) -> LatencyPredictor:
        """The predictor of a profile; for "local" with the means to measure what is missing."""
        if not profile.is_local:
            return cls(profile)
        from autocompress.runtimes.registry import load_runtime

        runtime = load_runtime(profile.runtime.name)
        local = LocalTable(runtime, threads=profile.runtime.threads)
        return cls(profile_of(local), local=local)

    # -- kernels ----------------------------------------------------------------------------------

    def kernels(self, ops: Sequence[Op]) -> tuple[KernelSignature, ...]:
        """The kernels that the device's runtime executes for a candidate."""
        return tuple(kernel for _, kernel in self.lower_by_op(ops, quantized_tensors(ops)))

    def missing(self, ops: Sequence[Op]) -> list[KernelSignature]:
        """Kernels of a candidate that the table lacks."""
        table = self.profile.table
        found = {k.key: k.dense for k in self.kernels(ops) if not k.is_view and k not in table}
        return list(found.values())

    def measure(
        self,
        kernels: Sequence[KernelSignature],
        *,
        deadline: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Measure missing kernels where the device is at hand; elsewhere do nothing.

        Args:
            kernels: the first ones are measured first; known ones are skipped.
            deadline: ``time.monotonic()`` after which nothing new is started.
            progress: told how many of how many are done.

        Returns:
            How many were measured.
        """
        if self.local is None:
            return 0
        count = self.local.measure(kernels, deadline=deadline, progress=progress)
        if count:
            self._prices = {k: p for k, p in self._prices.items() if p.measured}
            self._fallback = None
        return count

    def price(self, kernel: KernelSignature) -> KernelPrice:
        """A kernel's price: its row, else the profile's roofline, else rows of its kind.

        Where zeros are credited, times of rows are divided by the factor, and of a roofline the
        multiplications alone: what waits for memory gains nothing.
        """
        key = (kernel.key, kernel.speedup)
        known = self._prices.get(key)
        if known is None:
            known = self._prices[key] = self._price(kernel)
        return known

    def _price(self, kernel: KernelSignature) -> KernelPrice:
        price = self._unscaled(kernel)
        if self.profile.scale is None:
            return price
        factor = self.profile.scale.factor(kernel)
        return KernelPrice(factor * price.hot_us, factor * price.ctx_us, price.error)

    def _unscaled(self, kernel: KernelSignature) -> KernelPrice:
        if kernel.is_view:
            view = self.profile.runtime.view_us
            return KernelPrice(view, view, 0.0)
        row = self.profile.table.get(kernel)
        if row is not None:
            return _credited(row.hot_us, row.ctx_us, 0.0, kernel.speedup)
        if self.profile.roofline is not None:
            us, error = self.profile.roofline.price(kernel, threads=self.profile.runtime.threads)
            return KernelPrice(us, us, error)
        if self._fallback is None:
            self._fallback = Fallback(self.profile.table)
        guess = self._fallback.guess(kernel)
        return _credited(guess.hot_us, guess.ctx_us, guess.error, kernel.speedup)

    # -- networks ---------------------------------------------------------------------------------

    def sums(self, kernels: Sequence[KernelSignature]) -> NetworkSums:
        """What the formula needs of a network."""
        prices = [self.price(kernel) for kernel in kernels]
        return NetworkSums(
            hot_us=sum(p.hot_us for p in prices),
            ctx_us=sum(p.ctx_us for p in prices),
            weight_bytes=sum(k.weight_bytes for k in kernels),
            activation_bytes=sum(k.activation_bytes for k in kernels),
            kernels=len(kernels),
            largest_activation_bytes=max((k.largest_activation_bytes for k in kernels), default=0),
        )

    def estimate(self, ops: Sequence[Op]) -> Estimate:
        """Latency of a candidate in milliseconds, batch 1, with its band."""
        return self.estimate_kernels(self.kernels(ops))

    def estimate_kernels(self, kernels: Sequence[KernelSignature]) -> Estimate:
        """The same from kernels, such as those of a file that is already exported."""
        total = np.array([as_row(self.sums(kernels))])
        run_us = self.profile.runtime.run_us
        value = float(self.calibration.total_us(total, run_us)[0]) / 1e3
        prices = [self.price(kernel) for kernel in kernels]
        hot = sum(p.hot_us for p in prices)
        guessed = sum(p.hot_us for p in prices if not p.measured)
        doubt = sum(p.hot_us * p.error for p in prices)
        return banded(value, hot, guessed, doubt, self.validation)

    def energy_mj(self, kernels: Sequence[KernelSignature], latency_ms: float) -> float | None:
        """Millijoules of an inference that takes so long; None where the profile has no model."""
        model = self.profile.energy
        if model is None:
            return None
        return sum(map(model.kernel_mj, kernels)) + model.active_mw * latency_ms / 1e3

    def by_op(self, ops: Sequence[Op]) -> dict[str, float]:
        """Estimated milliseconds of each operation; border kernels count where they are needed.

        The run's own overhead is left out, so the values add up to less than the estimate.
        """
        total: dict[str, float] = {}
        calibration = self.calibration
        for name, kernel in self.lower_by_op(ops, quantized_tensors(ops)):
            us = calibration.a * self.price(kernel).hot_us + calibration.kernel_us
            total[name] = total.get(name, 0.0) + us / 1e3
        return total

    @property
    def calibrated_profile(self) -> HardwareProfile:
        """The profile with the coefficients and the validation that hold now."""
        return replace(self.profile, calibration=self.calibration, validation=self.validation)

    # -- validation and calibration ---------------------------------------------------------------

    def validate(self, pairs: Sequence[tuple[Sequence[Op], float]]) -> Validation:
        """How wrong the estimates of networks are that were never fitted to.

        The band of later estimates follows from it; :func:`autocompress.hardware.quality.concerns`
        says when the figures should not be trusted.

        Args:
            pairs: a candidate's operations and its measured latency in milliseconds.

        Raises:
            RequestError: no networks, or a latency that is not positive.
        """
        if not pairs or any(not ms > 0 for _, ms in pairs):
            raise RequestError("validation needs networks with positive latencies")
        errors = [self.estimate(ops).value / ms - 1.0 for ops, ms in pairs]
        self.validation = validation_of(errors)
        return self.validation

    def calibrate(self, pairs: Sequence[tuple[Sequence[Op], float]]) -> Calibration:
        """Fit the formula to measured networks and check it on each of them left out in turn.

        Args:
            pairs: a candidate's operations and its measured latency in milliseconds.

        Raises:
            RequestError: fewer than two networks, or a latency that is not positive.
        """
        if len(pairs) < 2 or any(not ms > 0 for _, ms in pairs):
            raise RequestError("calibration needs at least two networks with positive latencies")
        sums = [self.sums(self.kernels(ops)) for ops, _ in pairs]
        measured = [ms * 1e3 for _, ms in pairs]
        run_us = self.profile.runtime.run_us
        errors = []
        for left_out in range(len(pairs)):
            rest = [i for i in range(len(pairs)) if i != left_out]
            part = fit([sums[i] for i in rest], [measured[i] for i in rest], run_us)
            row = np.array([as_row(sums[left_out])])
            estimate = float(part.total_us(row, run_us)[0])
            errors.append(estimate / measured[left_out] - 1.0)
        self.calibration = fit(sums, measured, run_us)
        self.validation = validation_of(errors)
        if self.local is not None:
            self.local.remember(
                calibration=self.calibration.to_json(), validation=asdict(self.validation)
            )
        return self.calibration


def validation_of(errors: Sequence[float]) -> Validation:
    """The summary of relative errors (estimate / measured - 1)."""
    sizes = np.abs(np.asarray(errors, dtype=np.float64))
    return Validation(
        networks=len(sizes),
        p50=float(np.quantile(sizes, 0.5)),
        p90=float(np.quantile(sizes, 0.9)),
        worst=float(sizes.max()),
        within5=float((sizes <= 0.05).mean()),
        within10=float((sizes <= 0.10).mean()),
    )


def banded(
    value: float, hot_us: float, guessed_us: float, doubt_us: float, validation: Validation
) -> Estimate:
    """An estimate with its band: the error seen in validation, widened by what was not measured.

    Args:
        value: the estimate.
        hot_us: sum of the kernels' times.
        guessed_us: the part of it that no row covers.
        doubt_us: how far that part may be off.
        validation: errors of whole networks.
    """
    share = doubt_us / hot_us if hot_us else 0.0
    error = math.hypot(max(validation.p90, 0.03), share)
    coverage = 1.0 - guessed_us / hot_us if hot_us else 1.0
    return Estimate(value, value / (1.0 + error), value * (1.0 + error), coverage)
