"""The device's latency table: measure what is missing, check it, and hold it still."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.figures import estimated
from autocompress.agent.prices import Prices
from autocompress.agent.seeds import uniform_seeds
from autocompress.core.candidate import Candidate
from autocompress.core.space import Genome
from autocompress.evaluation.evaluator import uniform
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.measurement.kernels import KernelSignature
from autocompress.search.feasibility import find_feasible
from autocompress.search.pricing import Pricer

STAGE = "price"
#: Random candidates whose kernels are looked at; the most frequent kernels are measured first.
_SAMPLES = 400
#: Seconds to measure kernels for when the budget counts trials.
_DEFAULT_SECONDS = 60.0


def run(context: Context) -> None:
    """Leaves a predictor and a pricer that do not change during the search."""
    if not context.folder.has_device:
        _prepare(context)
        context.predictor.profile.save(context.folder.device)
    from autocompress.hardware.profile import HardwareProfile

    profile = HardwareProfile.load(context.folder.device)
    # from here on nothing is measured for pricing: equal genomes must have equal prices
    context.predictor = LatencyPredictor(profile)
    context.pricer = Prices(CandidatePricer(context.space, context.predictor))
    if not context.folder.read_json("pricing.json"):
        _check(context)
    _check_feasible(context)


def _check_feasible(context: Context) -> None:
    """Find out before anything is trained whether the bounds that can be priced can be met.

    Raises:
        NoFeasibleCandidateError: they cannot; names the nearest and what to relax.
    """
    # prices of its own: the search's must not depend on what was asked for here
    prices = Prices(CandidatePricer(context.space, context.predictor))
    pricer = Pricer(prices, context.request.bounds)
    genomes = [genome for _, genome in uniform_seeds(context.space)]
    if pricer.violations(genomes).any(axis=1).all():
        rng = np.random.default_rng([context.request.seed, 0xFEA5])
        find_feasible(context.space, pricer, rng=rng)


def _prepare(context: Context) -> None:
    context.predictor = LatencyPredictor.for_device(context.profile)
    if not context.profile.is_local:
        return
    kernels = wanted_kernels(context)
    missing = [k for k in kernels if not k.is_view and k not in context.predictor.profile.table]
    seconds = context.plan.seconds.get(STAGE, _DEFAULT_SECONDS)
    began = time.monotonic()
    done = context.predictor.measure(
        missing,
        deadline=context.deadline(seconds),
        progress=context.progress(STAGE, "kernels"),
    )
    context.decide(
        STAGE,
        "measure kernels",
        f"{len(kernels)} kernels are within reach of a sample of the space; "
        f"{len(kernels) - len(missing)} were in the table, {done} were measured in "
        f"{time.monotonic() - began:.0f} s, {len(missing) - done} are estimated from their kind.",
        reachable=len(kernels), measured=done, missing=len(missing) - done,
    )  # fmt: skip


def wanted_kernels(context: Context) -> list[KernelSignature]:
    """Kernels that the space reaches, the most useful first: baselines, then by frequency."""
    space = context.space
    names = list(space.graph.layers)
    first = [
        space.decode(space.original),
        *(uniform(names, w, a) for w, a in ((8, 8), (4, 8))),
    ]
    counts: Counter[KernelSignature] = Counter()
    for candidate in first:
        for kernel in _kernels(context, candidate):
            counts[kernel] += _SAMPLES
    for genome in plausible_genomes(context, _SAMPLES):
        for kernel in set(_kernels(context, space.decode(genome))):
            counts[kernel] += 1
    return [kernel for kernel, _ in counts.most_common()]


def plausible_genomes(context: Context, n: int) -> list[Genome]:
    """Genomes as a search visits them: near the uniform ones, not anywhere."""
    from autocompress.agent.seeds import neighbours

    rng = np.random.default_rng([context.request.seed, 0xCE11])
    return neighbours(context.space, rng, n)


def _kernels(context: Context, candidate: Candidate) -> list[KernelSignature]:
    ops = context.space.graph.operations(candidate)
    return list(context.predictor.kernels(ops))


def _widen(context: Context, errors: list[float]) -> None:
    """Widen the band of later estimates when the baselines were missed by more than it."""
    validation = context.predictor.validation
    if not errors or max(errors) <= validation.p90:
        return
    worst = max(errors)
    profile = replace(
        context.predictor.profile,
        validation=replace(validation, p90=worst, worst=max(worst, validation.worst)),
    )
    profile.save(context.folder.device)
    context.predictor = LatencyPredictor(profile)
    context.pricer = Prices(CandidatePricer(context.space, context.predictor))
    context.decide(
        STAGE,
        "widen the band",
        f"A baseline was missed by {worst:.0%}, more than the {validation.p90:.0%} that nine in "
        f"ten estimates kept before: the band of every estimate is widened to it.",
        before=validation.p90, after=worst,
    )  # fmt: skip


def _check(context: Context) -> None:
    """Hold the estimates of the baselines against what was measured."""
    evidence = {}
    for name, row in context.baselines.items():
        candidate = Candidate.from_json(row["candidate"])
        row.update(estimated(context, context.space.graph.operations(candidate)))
        if measured := row.get("latency_ms"):
            evidence[name] = {"measured_ms": measured, "estimate_ms": row["latency_estimate_ms"]}
    context.folder.write_json("baseline.json", list(context.baselines.values()))
    context.folder.write_json("pricing.json", evidence)
    _widen(context, [abs(v["estimate_ms"] / v["measured_ms"] - 1) for v in evidence.values()])
    errors = [v["estimate_ms"] / v["measured_ms"] - 1 for v in evidence.values()]
    said = ", ".join(f"{error:+.0%}" for error in errors) or "not measured here"
    context.decide(
        STAGE,
        "check the table",
        f"{context.predictor.profile.summary}. Estimates of the baselines against their measured "
        f"latency: {said}.",
        **evidence,
    )
