"""Fits a device's formula to whole networks of a search space, measured where the device is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autocompress.graph.ops import Op
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.measurement.device import measure_networks
from autocompress.measurement.networks import Network
from autocompress.measurement.protocol import TimingProtocol
from autocompress.measurement.synthesis import supported

#: How networks are timed within a search: one fresh process, a few short passes.
QUICK = TimingProtocol("calibration", warmup=10, min_runs=60, min_seconds=0.06, passes=3)
#: Networks that the coefficients are worth fitting to.
FEWEST = 4
#: Seconds that a network costs on top of its runs: writing, loading, a share of the process.
_OVERHEAD = 0.4


def affordable(seconds: float, slowest_ms: float, most: int) -> int:
    """Networks that can be timed by :data:`QUICK` in ``seconds``, at most ``most``.

    Args:
        seconds: what may be spent.
        slowest_ms: latency of the slowest of them, milliseconds.
        most: as many as there is a use for.
    """
    running = max(QUICK.min_seconds, QUICK.min_runs * slowest_ms / 1e3)
    return max(0, min(most, int(seconds / (_OVERHEAD + 1.5 * running))))


def calibrate_on(
    predictor: LatencyPredictor,
    candidates: Iterable[Sequence[Op]],
    *,
    known: Sequence[tuple[Sequence[Op], float]] = (),
) -> int:
    """Measure candidates with random weights and fit the predictor's coefficients to them.

    Args:
        predictor: of a device that is at hand.
        candidates: the operations of each; those that cannot be written with random weights are
            left out.
        known: further networks with their measured latency in milliseconds.

    Returns:
        How many networks it was fitted to; 0 when there were too few, and nothing changed.
    """
    usable = [ops for ops in candidates if all(supported(op) for op in ops)]
    networks = [Network(f"candidate-{i}", tuple(ops)) for i, ops in enumerate(usable)]
    runtime = predictor.profile.runtime
    found = measure_networks(
        networks, threads=runtime.threads, runtime=runtime.name, protocol=QUICK
    )
    pairs = [(n.ops, found[n.name].value) for n in networks if found[n.name].ok]
    pairs += [(tuple(ops), milliseconds) for ops, milliseconds in known]
    if len(pairs) < FEWEST:
        return 0
    predictor.calibrate(pairs)
    return len(pairs)
