"""A new device from a few measured networks and the profiles of devices known already.

Devices differ in how fast they are at kinds of work, and agree on how the time of one kind grows
with its sizes. So a known device's prices are taken over with one factor a kind of work (dense
convolutions in floats, those in integers, depthwise ones, moving data, …), fitted to the measured
networks by ridge regression towards one common factor. Which known device to start from, and with
it the rules by which networks become kernels (what a runtime really executes matters more than the
regression: HELP, Lee et al. 2021, arXiv:2106.08630, leaves both to learning), is decided by the
error on each network left out in turn, which is also the profile's validation.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from autocompress.errors import RequestError
from autocompress.graph.ops import Op
from autocompress.hardware.limits import Limits
from autocompress.hardware.machine import Machine
from autocompress.hardware.predictor import LatencyPredictor, validation_of
from autocompress.hardware.profile import HardwareProfile, Provenance, Validation
from autocompress.hardware.roofline import Roofline, family_of
from autocompress.hardware.work_scale import WORK_KINDS, WorkScale, work_kind

Floats = npt.NDArray[np.float64]
#: Networks below which nothing can be said.
FEWEST = 3
#: How far a kind's factor is expected from the common one, as a share; and how well a measured
#: latency is known.
_SPREAD, _NOISE = 0.35, 0.03
TERMS = (*WORK_KINDS, "memory", "each kernel", "each run")
#: The last of them are in microseconds, not in shares of what the known device takes.
_COUNTED = 2


@dataclass(frozen=True, slots=True)
class MeasuredNetwork:
    """A network and what it took on the new device.

    Attributes:
        name: for messages.
        ops: its operations.
        latency_ms: measured, batch 1.
    """

    name: str
    ops: tuple[Op, ...]
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """What came of it.

    Attributes:
        profile: the new device, of kind "transferred".
        base: the known device that it started from.
        factors: for each kind of :data:`TERMS`: how much slower than the base it is, or
            microseconds.
        errors: for each known device, the median error on networks left out in turn.
    """

    profile: HardwareProfile
    base: str
    factors: dict[str, float]
    errors: dict[str, float]


class _Base:
    """A known device and the measured networks in its terms."""

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile
        self.predictor = LatencyPredictor(profile)

    def row(self, ops: Sequence[Op]) -> Floats:
        """Microseconds by kind as the known device takes them, the number of kernels, and one."""
        sums = dict.fromkeys(TERMS, 0.0)
        kernels = self.predictor.kernels(ops)
        total = self.predictor.sums(kernels)
        known = self.profile.calibration
        footprint = np.array([total.weight_bytes + total.largest_activation_bytes])
        share = float(known.outside_near(footprint)[0])
        for kernel in kernels:
            price = self.predictor.price(kernel)
            us = (1.0 - share) * price.hot_us + share * max(price.hot_us, price.ctx_us)
            sums[work_kind(kernel)] += known.a * us
        weights, activations = (
            np.array([bytes_]) for bytes_ in (total.weight_bytes, total.activation_bytes)
        )
        sums["memory"] = float(known.memory_us(weights, activations, footprint)[0])
        sums["each kernel"] = float(len(kernels))
        sums["each run"] = 1.0
        return np.array([sums[kind] for kind in TERMS])


def _fit(rows: Floats, truth: Floats) -> Floats:
    """Factors with the smallest relative error, drawn to the one factor that fits best overall."""
    work = rows[:, :-_COUNTED].sum(axis=1)
    common = float(np.median(truth / np.maximum(work, 1e-9)))
    typical = float(np.median(truth))
    kernels = max(1.0, float(np.median(rows[:, -2])))
    prior = np.array([common] * (len(TERMS) - _COUNTED) + [0.0, 0.0])
    spread = np.array(
        [_SPREAD * common] * (len(TERMS) - _COUNTED) + [0.1 * typical / kernels, 0.1 * typical]
    )
    design = np.vstack([rows * spread / truth[:, None], _NOISE * np.eye(len(TERMS))])
    target = np.concatenate([(truth - rows @ prior) / truth, np.zeros(len(TERMS))])
    # work is never free, and nothing takes less than no time
    least = np.array([0.05 * common] * (len(TERMS) - _COUNTED) + [0.0, 0.0])
    solved = lsq_linear(design, target, bounds=((least - prior) / spread - 1e-9, np.inf))
    return np.asarray(np.maximum(prior + spread * solved.x, least), dtype=np.float64)


def _left_out(rows: Floats, truth: Floats) -> Floats:
    """Relative errors of each network, estimated from all others."""
    errors = []
    for i in range(len(truth)):
        rest = np.arange(len(truth)) != i
        errors.append(float(rows[i] @ _fit(rows[rest], truth[rest])) / truth[i] - 1.0)
    return np.array(errors)


def adapt(
    name: str, networks: Sequence[MeasuredNetwork], bases: Sequence[HardwareProfile]
) -> Transfer:
    """A profile of a device from networks measured on it.

    Args:
        name: the new profile's id.
        networks: measured on the new device, at least :data:`FEWEST`; 10 to 20 that are spread over
            sizes and precisions do well.
        bases: profiles of known devices.

    Raises:
        RequestError: too few networks, a latency that is not positive, or no profile to start from.
    """
    if len(networks) < FEWEST:
        raise RequestError(
            f"{len(networks)} measured networks were given; at least {FEWEST} are needed, and 10 "
            "to 20 are better"
        )
    for network in networks:
        if not 0 < network.latency_ms < float("inf"):
            raise RequestError(
                f"network {network.name!r} has latency_ms = {network.latency_ms!r}; it must be "
                "positive"
            )
    _check(bases)
    truth = np.array([network.latency_ms * 1e3 for network in networks])
    tried: dict[str, tuple[_Base, Floats, Floats]] = {}
    for profile in bases:
        base = _Base(profile)
        rows = np.array([base.row(network.ops) for network in networks])
        tried[profile.id] = (base, rows, _left_out(rows, truth))
    best = min(tried, key=lambda key: float(np.median(np.abs(tried[key][2]))))
    base, rows, errors = tried[best]
    factors = dict(zip(TERMS, _fit(rows, truth).tolist(), strict=True))
    found = {family_of(k) for n in networks for k in base.predictor.kernels(n.ops)}
    return Transfer(
        profile=_profile(name, base.profile, factors, validation_of(errors.tolist()), found),
        base=best,
        factors=factors,
        errors={key: float(np.median(np.abs(found[2]))) for key, found in tried.items()},
    )


def _check(bases: Sequence[HardwareProfile]) -> None:
    if not bases:
        raise RequestError("no known device was given to start from; name profiles with a table")
    names = [base.id for base in bases]
    if len(set(names)) < len(names):
        raise RequestError(f"the known devices {', '.join(names)} are not all different")
    for base in bases:
        if not len(base.table) and base.roofline is None:
            raise RequestError(
                f"{base.id} has neither a latency table nor a roofline: there is nothing to start "
                "from; measure it first, or name another"
            )


def _profile(
    name: str,
    known: HardwareProfile,
    factors: dict[str, float],
    validation: Validation,
    families: Collection[str],
) -> HardwareProfile:
    calibration, base = known.calibration, known.scale
    scale = {
        kind: calibration.a * factors[kind] * (base.factors[kind] if base else 1.0)
        for kind in WORK_KINDS
    }
    return replace(
        known,
        id=name,
        description=f"transferred from {known.id}",
        kind="transferred",
        machine=Machine("unknown", known.machine.architecture, (), 1, 0),
        runtime=replace(known.runtime, run_us=factors["each run"]),
        limits=Limits(),  # those of the other device do not bind here
        calibration=replace(
            calibration,
            a=1.0,
            weight_us_per_mb=calibration.weight_us_per_mb * factors["memory"],
            activation_us_per_mb=calibration.activation_us_per_mb * factors["memory"],
            near_weight_us_per_mb=calibration.near_weight_us_per_mb * factors["memory"],
            near_activation_us_per_mb=calibration.near_activation_us_per_mb * factors["memory"],
            kernel_us=factors["each kernel"],
            t0_us=0.0,
            networks=validation.networks,
        ),
        validation=validation,
        provenance=Provenance(
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            source=f"{validation.networks} networks measured on it, and the prices of {known.id}",
            protocol=known.provenance.protocol,
            sources=known.provenance.sources,
            base=(known.id,),
        ),
        roofline=known.roofline and _surer(known.roofline, families),
        scale=WorkScale(scale),
        energy=None,
    )


def _surer(roofline: Roofline, families: Collection[str]) -> Roofline:
    """The same; of families that were measured, only what is left of the doubt."""
    error = {
        family: min(_SPREAD, known) if family in families else known
        for family, known in roofline.error.items()
    }
    return replace(roofline, error=error)


def most_telling(
    measured: Sequence[Sequence[Op]], pool: Sequence[Sequence[Op]], base: HardwareProfile
) -> list[int]:
    """Networks of ``pool`` in the order in which measuring them would teach most.

    Each next one has the largest variance of its relative estimate, given what was measured and
    those before it (sequential D-optimal design, Fedorov 1972).

    Args:
        measured: operations of the networks measured already.
        pool: operations of those that could be measured.
        base: a known device.
    """
    terms = _Base(base)
    spread = np.array([_SPREAD] * (len(TERMS) - _COUNTED) + [0.0, 0.0])

    def share(ops: Sequence[Op]) -> Floats:
        row = terms.row(ops)
        work = max(1e-9, float(row[:-_COUNTED].sum()))
        scale = spread.copy()
        scale[-_COUNTED:] = 0.1 * work / max(1.0, row[-2]), 0.1 * work
        return np.asarray(row * scale / work, dtype=np.float64)

    precision = np.eye(len(TERMS))
    for ops in measured:
        found = share(ops)
        precision += np.outer(found, found) / _NOISE**2
    rows = [share(ops) for ops in pool]
    left, order = list(range(len(pool))), []
    while left:
        inverse = np.linalg.inv(precision)
        best = max(left, key=lambda i: float(rows[i] @ inverse @ rows[i]))
        order.append(best)
        left.remove(best)
        precision += np.outer(rows[best], rows[best]) / _NOISE**2
    return order
