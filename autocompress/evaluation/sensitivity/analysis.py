"""The analysis as a whole: score every setting, measure what time allows, estimate the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import pandas as pd
import torch

from autocompress.core.candidate import Candidate
from autocompress.core.space import Genome
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import AutocompressError
from autocompress.evaluation.evaluator import CandidateEvaluator
from autocompress.evaluation.sensitivity.estimates import agreement, with_estimates
from autocompress.evaluation.sensitivity.interactions import Changes, interactions_table
from autocompress.evaluation.sensitivity.measuring import Outcome, TrueLoss
from autocompress.evaluation.sensitivity.pairs import Pair, PairRequest, choose_pairs, in_rounds
from autocompress.evaluation.sensitivity.result import Sensitivity
from autocompress.evaluation.sensitivity.scores import SCORES, Scorer
from autocompress.evaluation.sensitivity.settings import (
    Setting,
    in_order_of_interest,
    single_settings,
)
from autocompress.evaluation.splits import Split
from autocompress.graph.selection import DEPTH

#: Examples that gradients are taken on, at the most.
SCORE_EXAMPLES = 32
#: Bytes of inputs and results that are kept at one time; scores, which come before, may keep as
#: much.
LIMIT_BYTES = 2 << 30
#: Share of the time that scoring may take.
_SCORING = 0.3
#: Share of what is left behind scoring that single settings may take where pairs are asked for.
_SINGLES = 0.6

#: Metrics of a genome that need no evaluation: "size_bytes", "macs", "latency_ms" …
Price: TypeAlias = Callable[[Genome], Mapping[str, float]]
#: What a setting scores, and what the original does in the same state of its batch norms.
_Pair: TypeAlias = tuple[Outcome, Outcome]
SAVED = ("size_bytes", "macs", "latency_ms", "energy_mj")


@dataclass(frozen=True)
class Limits:
    """How much is measured.

    Attributes:
        deadline: ``time.monotonic()`` at which measuring ends, or None.
        settings: measured settings at the most, or None.
        stop: asked before each setting; True ends measuring.
    """

    deadline: float | None = None
    settings: int | None = None
    stop: Callable[[], bool] = field(default=lambda: False)

    def allow(self, done: int, expected_seconds: float) -> bool:
        """Whether one more setting may be measured, expected to take so long."""
        if self.stop() or (self.settings is not None and done >= self.settings):
            return False
        return self.deadline is None or time.monotonic() + expected_seconds <= self.deadline


def analyse(
    evaluator: CandidateEvaluator,
    space: ElasticSpace,
    examples: Split,
    *,
    limits: Limits,
    seed: int = 0,
    price: Price | None = None,
    progress: Callable[[int, int], None] | None = None,
    limit_bytes: int = LIMIT_BYTES,
    pairs: PairRequest | None = None,
) -> Sensitivity:
    """The loss of every single setting of ``space`` (see :class:`.result.Sensitivity`).

    Args:
        evaluator: prepares candidates; nothing is trained.
        space: whose single settings are looked at.
        examples: what losses are measured on.
        limits: how many of them; the others are estimated. What is measured is the same whatever
            the limits are, but how much is depends on the machine's speed where time is limited.
        seed: of the random directions in which the Hessian is looked at.
        price: what a genome saves; None leaves that out.
        progress: told how many settings of how many are measured.
        limit_bytes: of inputs and results that are kept at one time.
        pairs: settings that are also measured two at a time, within the same time; None for none.
            A limit of settings holds for single settings, and for pairs of chosen layers again.

    Raises:
        RequestError: ``pairs`` names a layer without settings.
    """
    began = time.monotonic()
    if evaluator.threads is not None:
        torch.set_num_threads(evaluator.threads)
    settings = single_settings(space)
    if pairs is not None:
        pairs.check(settings)
    truth = TrueLoss(evaluator, examples, limit_bytes=limit_bytes)
    scores, count, notes = _scores(evaluator, truth, settings, limits, seed, limit_bytes)
    savings = {} if price is None else _savings(settings, space, price)
    measured, errors = _measure_singles(truth, settings, limits, progress, pairs)
    interactions = interactions_table([], {}, {}, {})
    if pairs is not None:
        singles = {s: _changes(evaluator, *both) for s, both in measured.items()}
        saved = dict(zip(settings, savings.get("size_bytes_saved", ()), strict=False))
        losses = {setting: loss for setting, (loss, _) in singles.items()}
        chosen = choose_pairs(
            pairs, space, settings, losses, saved, reference=_original(truth).loss
        )
        joint, failed = _measure_pairs(truth, chosen, singles, limits, progress, pairs)
        interactions = interactions_table(chosen, singles, joint, failed)
    rows = []
    for setting in settings:
        row = _row(evaluator, setting, measured.get(setting))
        row |= {name: scores[setting].get(name, math.nan) for name in SCORES}
        rows.append({**row, "error": errors.get(setting, "")})
    table = pd.DataFrame(rows, columns=[*_COLUMNS, *SCORES, "error"])
    table = table.assign(**savings)
    references = {"kept": _original(truth)}
    if math.isnan(references["kept"].loss):
        notes = (*notes, "the original itself has no finite loss and metric on the examples")
    for setting, (_, reference) in measured.items():
        if evaluator.changes_structure(setting.candidate):
            references["reestimated"] = reference
    return Sensitivity(
        table=with_estimates(table),
        skipped=refusals_table(space),
        agreement=agreement(table),
        reference={k: {"loss": v.loss, "metric": v.metric} for k, v in references.items()},
        examples=len(examples),
        score_examples=count,
        seconds=time.monotonic() - began,
        notes=notes,
        interactions=interactions,
    )


_COLUMNS = (
    "layer", "technique", "setting", "gene", "option", "loss_change", "metric_drop", "measured",
    "loss", "metric",
)  # fmt: skip


def refusals_table(space: ElasticSpace) -> pd.DataFrame:
    """Layers and groups that cannot take a technique or setting: a row each, with the reason."""
    rows = [(r.name, r.technique, r.setting, r.reason) for r in space.refusals]
    return pd.DataFrame(rows, columns=["layer", "technique", "setting", "reason"])


def _scores(
    evaluator: CandidateEvaluator,
    truth: TrueLoss,
    settings: Sequence[Setting],
    limits: Limits,
    seed: int,
    limit_bytes: int,
) -> tuple[dict[Setting, dict[str, float]], int, tuple[str, ...]]:
    """The scores, how many examples they were taken on, and what is missing."""
    scorer = Scorer(
        evaluator.elastic, evaluator.original, truth.kept.raw, settings, evaluator.task,
        limit_bytes=limit_bytes,
    )  # fmt: skip
    inputs, targets = truth.examples.first(SCORE_EXAMPLES)
    until = None
    if limits.deadline is not None:
        now = time.monotonic()
        until = now + _SCORING * max(0.0, limits.deadline - now)
    try:
        found = scorer.scores(inputs, targets, seed=seed, deadline=until)
    except Exception as error:  # the user's operators may raise anything; losses need no scores
        first = str(error).strip().partition("\n")[0]
        note = f"no cheap scores: {type(error).__name__}: {first}"
        return {setting: {} for setting in settings}, 0, (note,)
    late = f"{scorer.unscored} settings have no cheap scores, for want of time"
    mixed = (
        f"results of {len(scorer.mixed)} nodes do not hold the examples apart (such as "
        f"{min(scorer.mixed, default='')}): their settings have no output_fisher and no taylor"
    )
    notes = (
        scorer.note, late if scorer.unscored else "", mixed if scorer.mixed else "",
        _failures(scorer),
    )  # fmt: skip
    return found, scorer.examples, tuple(note for note in notes if note)


def _failures(scorer: Scorer) -> str:
    """Which settings could not be scored, in a sentence."""
    if not scorer.failed:
        return ""
    setting, reason = next(iter(scorer.failed.items()))
    return (
        f"{len(scorer.failed)} settings have no cheap scores, such as {setting.label} of "
        f"{setting.target}: {reason}"
    )


_Subject = TypeVar("_Subject")
#: Told how many settings of how many are measured.
_Progress: TypeAlias = Callable[[int, int], None] | None


def _measure_singles(
    truth: TrueLoss,
    settings: Sequence[Setting],
    limits: Limits,
    progress: _Progress,
    pairs: PairRequest | None,
) -> tuple[dict[Setting, _Pair], dict[Setting, str]]:
    """What was measured and the reference for it, and why other settings could not be."""
    first = [] if pairs is None else pairs.first(settings)
    order = [*_in_sweeps(truth, first)]
    done = {(s.gene, s.option) for s in order}
    order += _in_sweeps(truth, [s for s in settings if (s.gene, s.option) not in done])
    if pairs is not None and limits.deadline is not None:
        now = time.monotonic()
        limits = replace(limits, deadline=now + _SINGLES * max(0.0, limits.deadline - now))
    candidates = ((setting, setting.candidate) for setting in order)
    return _measure(truth, candidates, len(order), limits, progress)


def _measure_pairs(
    truth: TrueLoss,
    pairs: Sequence[Pair],
    singles: Mapping[Setting, Changes],
    limits: Limits,
    progress: _Progress,
    request: PairRequest,
) -> tuple[dict[Pair, Changes], dict[Pair, str]]:
    """What the pairs change together, as far as both are known alone, and why some could not be."""
    known = [pair for pair in pairs if pair.first in singles and pair.second in singles]
    if request.most is not None:
        limits = replace(limits, settings=None)  # so many are asked for
    order = ((pair, pair.candidate) for pair in in_rounds(known, _places(truth)))
    found, errors = _measure(truth, order, len(known), limits, progress)
    return {pair: _changes(truth.evaluator, *both) for pair, both in found.items()}, errors


def _measure(
    truth: TrueLoss,
    candidates: Iterable[tuple[_Subject, Candidate]],
    count: int,
    limits: Limits,
    progress: _Progress,
) -> tuple[dict[_Subject, _Pair], dict[_Subject, str]]:
    """Measure one after the other while there is time."""
    found: dict[_Subject, _Pair] = {}
    errors: dict[_Subject, str] = {}
    slowest = 0.0
    for subject, candidate in candidates:
        if not limits.allow(len(found) + len(errors), slowest):
            break
        began = time.monotonic()
        try:
            reference = truth.reference(candidate).outcome
            found[subject] = truth.measure(candidate), reference
        except AutocompressError as error:
            errors[subject] = str(error)
        # a first time holds what is done only once
        slowest = max(0.5 * slowest, time.monotonic() - began)
        if progress is not None:
            progress(len(found) + len(errors), count)
    return found, errors


def _original(truth: TrueLoss) -> Outcome:
    """What the original scores; not a number where that cannot be said."""
    try:
        return truth.kept.outcome
    except AutocompressError:
        return Outcome(math.nan, math.nan)


def _in_sweeps(truth: TrueLoss, settings: Sequence[Setting]) -> Iterator[Setting]:
    """The rounds of interest, each in the order in which the model is run."""
    place = _places(truth)
    for group in in_order_of_interest(settings):
        yield from sorted(group, key=place)


def _places(truth: TrueLoss) -> Callable[[Setting], tuple[bool, int]]:
    """From a setting to where it strikes; those that change the structure come behind."""
    nodes = list(truth.kept.raw.graph.nodes)
    places: dict[str, int] = {}
    for number, node in enumerate(nodes):
        places.setdefault(node.name, number)
        if node.op == "call_module":
            places.setdefault(str(node.target), number)
    blocks = {b.name: places.get(b.input, 0) for b in truth.evaluator.elastic.graph.blocks}
    stages = truth.evaluator.elastic.graph.stages

    def place(setting: Setting) -> int:
        if setting.kind + ":" == DEPTH:
            kept = int(setting.candidate.architecture[setting.gene])
            return blocks[stages[setting.target][kept].name]
        return min((places.get(name, 0) for name in setting.layers), default=0)

    structural = truth.evaluator.changes_structure
    return lambda setting: (structural(setting.candidate), place(setting))


def _changes(evaluator: CandidateEvaluator, found: Outcome, reference: Outcome) -> Changes:
    """How much larger the loss is, and how much worse the metric."""
    return found.loss - reference.loss, evaluator.task.drop(reference.metric, found.metric)


def _row(
    evaluator: CandidateEvaluator,
    setting: Setting,
    measured: _Pair | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": setting.target, "technique": setting.technique, "setting": setting.label,
        "gene": setting.gene, "option": setting.option, "loss_change": math.nan,
        "metric_drop": math.nan, "measured": measured is not None, "loss": math.nan,
        "metric": math.nan,
    }  # fmt: skip
    if measured is not None:
        found, reference = measured
        row["loss"], row["metric"] = found.loss, found.metric
        row["loss_change"], row["metric_drop"] = _changes(evaluator, found, reference)
    return row


def _savings(
    settings: Sequence[Setting], space: ElasticSpace, price: Price
) -> dict[str, list[float]]:
    """By column, what each setting saves against the original."""
    whole = price(space.original)
    prices = [price(setting.genome) for setting in settings]
    return {
        f"{metric}_saved": [whole[metric] - p.get(metric, math.nan) for p in prices]
        for metric in SAVED
        if metric in whole
    }
