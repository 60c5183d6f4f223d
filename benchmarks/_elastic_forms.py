"""One network's random candidates, elastic against realised, and each of its knobs turned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compression.quantization import simulate_weights
from autocompress.core.candidate import Candidate
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.layers import ElasticNorm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.testing.knobs import Turned, turn_knobs
from benchmarks._subjects import Subject

#: Least variance of a channel, as a share of the mean over the norm's channels.
LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class Apart:
    """What elastic and realised forms differ by, over random candidates.

    Attributes:
        largest: difference, as a share of the candidate's largest output.
        spread: least that one candidate's outputs differ by from input to input, as the same share:
            a network that says the same of everything would show no mistake.
    """

    largest: float
    spread: float


def compare(subject: Subject, count: int, seed: int) -> Apart:
    """Elastic and realised form of random candidates.

    Random networks have small outputs, hence shares. Weights are in both as they are stored.
    Activations stay floats: a value that is next to the middle between two steps would fall to
    either side, however small the difference.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    drawn = [subject.space.decode(subject.space.sample(rng)) for _ in range(count)]
    found = [_difference(subject, candidate) for candidate in drawn]
    worst = Apart(max(one.largest for one in found), min(one.spread for one in found))
    print(
        f"{subject.name}: {count} random candidates, {worst.largest:.1e} of the largest output "
        f"apart, from input to input at least {worst.spread:.1e}, "
        f"{time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return worst


def _difference(subject: Subject, candidate: Candidate) -> Apart:
    """With the statistics of the largest network, then with the candidate's own.

    Under another's statistics a network may fade until it says the same of everything. Under its
    own, a channel that few bits or zeros have left constant has no variance: its last bit would be
    made 300 times larger in one norm, and as much again in the next. So variances are at least a
    share of those beside them.
    """
    elastic = subject.elastic.configure(Candidate())
    before = {name: buffer.clone() for name, buffer in elastic.named_buffers()}
    operations = subject.space.graph.operations(candidate)
    realised = simulate_weights(realise(elastic, candidate), operations).eval()
    elastic.configure(candidate)
    first = _apart(realised, elastic, subject)
    if reestimate_batch_norm(realised, [subject.seen]):
        _raise_variances(realised)
        _copy_statistics(realised, elastic)
        second = _apart(realised, elastic, subject)
        for name, buffer in elastic.named_buffers():
            buffer.copy_(before[name])
        return Apart(max(first.largest, second.largest), second.spread)
    return first


def _raise_variances(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            variances = module.running_var
            assert variances is not None  # noqa: S101 - for the type checker
            variances.clamp_(min=LEAST_VARIANCE * max(float(variances.mean()), module.eps))


def _copy_statistics(realised: nn.Module, elastic: ElasticModel) -> None:
    modules = dict(realised.named_modules())
    for name, norm in elastic.named_modules():
        found = modules.get(name.removeprefix("weights."))
        if not isinstance(norm, ElasticNorm):
            continue
        if isinstance(found, nn.BatchNorm2d):
            for key in ("running_mean", "running_var"):
                kept = slice(None) if norm.kept.indices is None else norm.kept.indices
                getattr(norm.module, key)[kept] = getattr(found, key)


def _apart(realised: nn.Module, elastic: ElasticModel, subject: Subject) -> Apart:
    worst, spread = 0.0, 0.0
    with torch.no_grad():
        for batch in subject.batches:
            expected, found = realised(batch), elastic(batch)
            if expected.shape != found.shape or not expected.isfinite().all():
                return Apart(float("inf"), 0.0)
            most = float(expected.abs().max())
            worst = max(worst, float((expected - found).abs().max()) / most)
            spread = max(spread, float((expected - expected[:1]).abs().max()) / most)
    return Apart(worst, spread)


def turned(subject: Subject, every: int) -> list[Turned]:
    """What every option of every ``every``-th choice does to the outputs."""
    started = time.perf_counter()
    places = range(0, len(subject.space.choices), every)
    found = list(turn_knobs(subject.space, subject.elastic, (subject.batches[0],), places))
    idle = {one.choice for one in found if not one.has_effect}
    if idle:  # a channel that is dead for a few inputs lives for others
        again = [place for place in places if subject.space.choices[place].name in idle]
        found = [one for one in found if one.choice not in idle]
        found += turn_knobs(subject.space, subject.elastic, (subject.seen,), again)
    names = [f"{one.choice}={one.option}" for one in found if not one.has_effect]
    least = min(one.change for one in found)
    print(
        f"{subject.name}: {len(found)} options, the least changes {least:.1e}, without effect: "
        f"{', '.join(names) or 'none'}, {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return found


def look_at(
    names: Sequence[str], make: Callable[[str, int], Subject], *, quick: bool, seed: int
) -> dict[str, dict[str, Any]]:
    """Largest differences of every network, and what turning its knobs did; all by name."""
    apart: dict[str, Apart] = {}
    knobs: dict[str, dict[str, Any]] = {}
    for name in names:
        subject = make(name, seed)
        apart[name] = compare(subject, candidates(quick=quick), seed)
        found = turned(subject, 10 if quick else 1)
        knobs[name] = {
            "options": len(found),
            "least_change": min(one.change for one in found),
            "without_effect": [f"{o.choice}={o.option}" for o in found if not o.has_effect],
        }
    return {
        "max_diff": {name: one.largest for name, one in apart.items()},
        "least_spread": {name: one.spread for name, one in apart.items()},
        "knobs": knobs,
    }


def candidates(*, quick: bool) -> int:
    """Random candidates of each network."""
    return 10 if quick else 100
