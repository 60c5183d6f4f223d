"""The device's latency table: measure what is missing, check it, and hold it still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.figures import Row, estimated
from autocompress.agent.prices import Prices
from autocompress.agent.seeds import neighbours, uniform_seeds
from autocompress.core.candidate import Candidate
from autocompress.core.space import Genome
from autocompress.elastic.packed_size import PackedSizes
from autocompress.evaluation.evaluator import uniform
from autocompress.hardware.builder import TableBuilder
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.quality import concerns
from autocompress.measurement.calibrating import affordable, calibrate_on
from autocompress.search.feasibility import find_feasible
from autocompress.search.pricing import Pricer

STAGE = "price"
#: Random candidates whose kernels are looked at; the most frequent kernels are measured first.
_SAMPLES = 400
#: Networks that the formula is fitted to, besides the baselines, and the share of the time for it.
_NETWORKS = 10
_CALIBRATING = 0.35
#: Share of the time for verification that may go to kernels of the finalists.
_REFINING = 0.1
#: Seconds to measure kernels for when the budget counts trials.
_DEFAULT_SECONDS = 60.0


def run(context: Context) -> None:
    """Leaves a predictor and a pricer that do not change during the search."""
    if not context.folder.has_device:
        _prepare(context)
        context.predictor.calibrated_profile.save(context.folder.device)
    from autocompress.hardware.profile import HardwareProfile

    profile = HardwareProfile.load(context.folder.device)
    # from here on nothing is measured for pricing: equal genomes must have equal prices
    context.predictor = LatencyPredictor(profile)
    context.pricer = prices(context)
    for row in context.baselines.values():  # also of those that were made again
        row.update(estimated(context, context.space.graph.operations(_candidate(row))))
    context.folder.write_json("baseline.json", list(context.baselines.values()))
    if context.folder.read_json("pricing.json", dict) is None:
        _check(context)
        for concern in concerns(context.predictor.profile):
            context.decide(STAGE, "be careful", f"{context.profile.id}: {concern}.")
    _check_feasible(context)


def prices(context: Context) -> Prices:
    """Fresh prices; of packed files, too, as shared weights are now, where they are asked for."""
    packed = PackedSizes(context.elastic) if context.wants_packed else None
    return Prices(CandidatePricer(context.space, context.predictor, packed=packed))


def _check_feasible(context: Context) -> None:
    """Find out before anything is trained whether the bounds that can be priced can be met.

    Raises:
        NoFeasibleCandidateError: they cannot; names the nearest and what to relax.
    """
    # prices of its own: the search's must not depend on what was asked for here
    pricer = Pricer(prices(context), context.request.bounds)
    genomes = [genome for _, genome in uniform_seeds(context.space)]
    if pricer.violations(genomes).any(axis=1).all():
        rng = np.random.default_rng([context.request.seed, 0xFEA5])
        find_feasible(context.space, pricer, rng=rng)


def _prepare(context: Context) -> None:
    context.predictor = LatencyPredictor.for_device(context.profile)
    if not context.profile.is_local:
        return
    seconds = context.plan.seconds.get(STAGE, _DEFAULT_SECONDS)
    reserve = _CALIBRATING * seconds
    builder = _builder(context)
    plan = builder.plan()
    built = builder.build(
        deadline=context.deadline(seconds - reserve), progress=context.progress(STAGE, "kernels")
    )
    context.decide(
        STAGE,
        "measure kernels",
        f"{plan.sentence()} {built.measured} were measured in {built.seconds:.0f} s; "
        f"{built.missing} are estimated from their kind, {1 - built.covered:.1%} of what the "
        "sampled candidates execute.",
        reachable=built.reached, measured=built.measured, missing=built.missing,
        covered=built.covered, reach=plan.coverage, expected_seconds=plan.seconds,
    )  # fmt: skip
    _calibrate(context, max(reserve, seconds - built.seconds))


def _builder(context: Context) -> TableBuilder:
    """What the space reaches: the baselines first, then what a search is likely to visit."""
    space = context.space
    layers = space.graph.layers
    builder = TableBuilder(context.predictor)
    original = space.decode(space.original)
    first = [original, *(uniform(layers, w, a) for w, a in ((8, 8), (4, 8)))]
    builder.add((space.graph.operations(c) for c in first), first=True)
    builder.add(space.graph.operations(space.decode(g)) for g in plausible_genomes(context))
    return builder


def plausible_genomes(context: Context, n: int = _SAMPLES) -> list[Genome]:
    """Genomes as a search visits them: near the uniform ones, not anywhere."""
    rng = np.random.default_rng([context.request.seed, 0xCE11])
    return neighbours(context.space, rng, n)


def _calibrate(context: Context, seconds: float) -> None:
    """Fit the formula to whole networks: the baselines, and as many candidates as time allows."""
    space, known, slowest = context.space, [], 0.0
    for row in context.baselines.values():
        if row.get("latency_ms"):
            candidate = Candidate.from_json(row["candidate"])
            known.append((space.graph.operations(candidate), float(row["latency_ms"])))
            slowest = max(slowest, float(row["latency_ms"]))
    count = affordable(seconds, slowest, _NETWORKS)
    genomes = plausible_genomes(context)
    chosen = [genomes[i] for i in np.linspace(0, len(genomes) - 1, count).astype(int)]
    candidates = (space.graph.operations(space.decode(genome)) for genome in chosen)
    fitted = calibrate_on(context.predictor, candidates, known=known)
    if not fitted:
        return
    checked = context.predictor.validation
    context.decide(
        STAGE,
        "calibrate",
        f"The formula from kernels to networks was fitted to {fitted} measured networks, "
        f"{len(known)} baselines among them; each of them left out in turn is estimated within "
        f"{checked.p50:.1%} (median) and {checked.p90:.1%} (nine in ten).",
        **context.predictor.calibration.to_json(),
    )  # fmt: skip


def refine_table(context: Context) -> None:
    """Measure what the finalists execute and the table lacks, where the device is at hand.

    The search is over by then: its prices held still, those of the finalists get better.
    """
    profile = context.predictor.profile
    if not profile.is_local or not context.finalists:
        return
    predictor = LatencyPredictor.for_device(profile)
    predictor.profile.table.add(profile.table)
    builder = TableBuilder(predictor)
    builder.add(context.space.graph.operations(c) for c in context.finalists.values())
    missing = len(builder.missing())
    if not missing:
        return
    plan = context.plan.seconds.get("verify", _DEFAULT_SECONDS)
    built = builder.build(deadline=context.deadline(_REFINING * plan))
    refined = replace(profile, table=predictor.profile.table)
    refined.save(context.folder.device)
    context.predictor = LatencyPredictor(refined)
    context.decide(
        STAGE,
        "refine the table",
        f"{missing} kernels of the finalists had been estimated from their kind; {built.measured} "
        f"of them were measured now.",
        missing=missing, measured=built.measured,
    )  # fmt: skip


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
    context.pricer = prices(context)
    context.decide(
        STAGE,
        "widen the band",
        f"A baseline was missed by {worst:.0%}, more than the {validation.p90:.0%} that nine in "
        f"ten estimates kept before: the band of every estimate is widened to it.",
        before=validation.p90, after=worst,
    )  # fmt: skip


def _candidate(row: Row) -> Candidate:
    return Candidate.from_json(row["candidate"])


def _check(context: Context) -> None:
    """Hold the estimates of the baselines against what was measured."""
    evidence = {}
    for name, row in context.baselines.items():
        if measured := row.get("latency_ms"):
            evidence[name] = {"measured_ms": measured, "estimate_ms": row["latency_estimate_ms"]}
    _widen(context, [abs(v["estimate_ms"] / v["measured_ms"] - 1) for v in evidence.values()])
    context.folder.write_json("pricing.json", evidence)
    errors = [v["estimate_ms"] / v["measured_ms"] - 1 for v in evidence.values()]
    said = ", ".join(f"{error:+.0%}" for error in errors) or "not measured here"
    context.decide(
        STAGE,
        "check the table",
        f"{context.predictor.profile.summary}. Estimates of the baselines against their measured "
        f"latency: {said}.",
        **evidence,
    )
