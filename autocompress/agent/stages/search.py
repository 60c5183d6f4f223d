"""The search itself: one study over architecture and compression together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autocompress.agent.context import Context
from autocompress.agent.seeds import sensitivity_seeds, uniform_seeds
from autocompress.agent.stages.baseline import FP32
from autocompress.agent.stages.price import prices
from autocompress.core.budget import Fidelity
from autocompress.core.objective import METRICS
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.search.executors.registry import make_executor
from autocompress.search.pricing import Price
from autocompress.search.store import TrialStore
from autocompress.search.study import CHOSEN, Seeds, Study

STAGE = "search"
#: No trial may take longer than this many times what the plan expects, nor less than a minute.
_PATIENCE = 20.0
#: So many trials are run, and models finalised, however little time is left for them.
LEAST = 3
#: A row's accuracy on the examples that trials are judged by: a part of the validation examples
#: below the final fidelity.
_SEEN = ("trial_accuracy", "val_accuracy")
#: Metrics that cheap moves are rated by.
_PRICED = ("latency_ms", "size_bytes", "packed_bytes", "macs", "energy_mj")
#: Points on the way from 8 to 4 bits, counting the 8 bits that are a seed anyway.
_LADDER = 5
_ESTIMATED = {"latency_ms": "latency_estimate_ms", "size_bytes": "size_estimate_bytes"}


def run(context: Context) -> None:
    """Leaves the search's front in the context; finished trials are in ``study.db``."""
    request, plan = context.request, context.plan
    if context.wants_packed:  # the weights may have been trained since they were last counted
        context.pricer = prices(context)
    context.seeds = _seeds(context)
    _say_if_recipes_are_held(context)
    before = _of_the_search(stored_trials(context))
    limit = max(60.0, _PATIENCE * plan.seconds.get(STAGE, 0.0) / max(1, plan.trials))
    with open_study(context, limit, plan.fidelity) as study:
        reserve = sum(plan.seconds.get(name, 0.0) for name in ("finalise", "verify"))

        def on_trial(record: TrialRecord) -> None:
            _tell(context, record, len(_of_the_search(study.trials)))

        def go_on(trials: int | None, deadline: float | None, seeds: Seeds) -> str:
            return study.run(
                plan.fidelity, max_trials=trials, deadline=deadline, seeds=seeds,
                on_trial=on_trial, should_stop=lambda: context.stopping,
            )  # fmt: skip

        seeds: Seeds = dict(context.seeds) if study.strategy.takes_seeds else {}
        wanted = request.budget.trials
        if plan.seconds:  # when earlier stages took longer than planned, there are a few trials yet
            go_on(min(LEAST, wanted or LEAST), None, seeds)
            ending = go_on(wanted, context.deadline(None, reserve), ())
        else:
            ending = go_on(wanted or plan.trials, None, seeds)
        context.front = study.front()
        trials = _of_the_search(study.trials)
        new = len(trials) - len(before)
        _conclude(context, trials, ending, new, study.rejected, study.repaired)


@contextmanager
def open_study(
    context: Context, trial_seconds: float, fidelity: Fidelity, *, price: Price | None = None
) -> Iterator[Study]:
    """The run's study, over whatever its store holds already.

    Args:
        context: the run.
        trial_seconds: no trial may take longer.
        fidelity: of the trials that it is opened for.
        price: gives the prices instead of the run's own.
    """
    request = context.request
    with (
        TrialStore(context.folder.path / "study.db") as store,
        make_executor(
            request.executor, context.evaluator, workers=request.workers,
            deadline_seconds=trial_seconds,
        ) as executor,
    ):  # fmt: skip
        yield Study(
            context.space,
            objectives=request.objectives,
            constraints=request.bounds,
            price=price or context.pricer,
            strategy=request.strategy,
            executor=executor,
            store=store,
            seed=request.seed,
            reference={"accuracy": original_score(context, fidelity)},
        )


def original_score(context: Context, fidelity: Fidelity) -> float:
    """The original's score, larger is better, on the examples that a fidelity's trials are on."""
    return context.request.task.score(context.baselines[FP32][_SEEN[fidelity == Fidelity.FINAL]])


def examples_seen(context: Context, first: Fidelity, second: Fidelity) -> tuple[int, int] | None:
    """Of how many examples the accuracies of two fidelities are shares; None if they are none."""
    task = context.request.task
    if not (task.metric_is_share and task.higher_is_better):
        return None
    evaluator = context.evaluator
    trial, final = len(evaluator.trial_split()), len(evaluator.data.val)
    return (
        final if first == Fidelity.FINAL else trial,
        final if second == Fidelity.FINAL else trial,
    )


def baseline_metrics(context: Context, fidelity: Fidelity) -> list[dict[str, float]]:
    """The baselines' figures in the terms of trials of a fidelity: scores and estimates."""
    found = []
    for row in context.baselines.values():
        estimates = {
            metric: row.get(_ESTIMATED.get(metric, metric))
            for metric in METRICS
            if metric != "accuracy"
        }
        metrics = {name: float(value) for name, value in estimates.items() if value is not None}
        accuracy = context.request.task.score(row[_SEEN[fidelity == Fidelity.FINAL]])
        found.append({**metrics, "accuracy": accuracy})
    return found


def _say_if_recipes_are_held(context: Context) -> None:
    held = [c.name for c in context.space.choices if c.kind == "recipe" and len(c.options) > 1]
    if held and not context.plan.fidelity.trains:
        context.decide(
            STAGE,
            "recipes are not searched",
            "Trials are not trained, and untrained ones do not show how they are best trained "
            "back: every candidate keeps the usual recipe.",
            genes=held,
        )


def _seeds(context: Context) -> list[tuple[str, Genome]]:
    uniform = uniform_seeds(context.space)
    integers = next((genome for name, genome in uniform if name.startswith("w8a8")), None)
    paths = []
    if context.sensitivity:
        space, known = context.space, context.sensitivity
        start = space.original if integers is None else integers
        wanted = [o.metric for o in context.request.objectives if o.metric in _PRICED]
        paths = [
            sensitivity_seeds(space, known, context.pricer, metric, start=start)
            for metric in wanted
        ]
        if "size_bytes" in wanted and integers is not None:
            # from 8 to 4 bits, layer by layer: on this way little is lost
            ladder = sensitivity_seeds(
                space, known, context.pricer, "size_bytes", start=integers, count=_LADDER,
                label="8 to 4 bits",
                allowed=lambda gene, value: gene.startswith("precision:") and value == "w4a8",
            )  # fmt: skip
            paths.append(ladder[1:])
    found: dict[str, Genome] = {}
    taken: set[bytes] = set()
    for name, genome in _interleave(uniform, *paths):
        if genome.tobytes() not in taken:
            taken.add(genome.tobytes())
            found[name] = genome
    # leave at least half of the trials to the strategy
    return list(found.items())[: max(1, context.plan.trials // 2)]


def _interleave(*lists: list[tuple[str, Genome]]) -> Iterator[tuple[str, Genome]]:
    for i in range(max(len(items) for items in lists)):
        for items in lists:
            if i < len(items):
                yield items[i]


def _tell(context: Context, record: TrialRecord, count: int) -> None:
    shown = ", ".join(
        f"{o.metric} {record.metrics[o.metric]:.4g}"
        for o in context.request.objectives
        if o.metric in record.metrics
    )
    what = shown if record.state == "complete" else f"failed: {record.error}"
    context.tell(
        STAGE,
        "trial",
        f"trial {record.number} ({record.origin}): {what}",
        {
            "number": record.number, "state": record.state, "metrics": dict(record.metrics),
            "done": count, "total": context.plan.trials, "seconds": record.seconds,
        },
    )  # fmt: skip


def stored_trials(context: Context) -> list[TrialRecord]:
    """The finished trials that the run folder holds already."""
    path = context.folder.path / "study.db"
    if not path.is_file():
        return []
    with TrialStore(path) as store:
        return store.records()


def _of_the_search(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Without those that other stages chose."""
    return [t for t in trials if not t.origin.startswith(CHOSEN)]


def _conclude(
    context: Context,
    trials: list[TrialRecord],
    ending: str,
    new: int,
    rejected: dict[str, int],
    repaired: int,
) -> None:
    failures = Counter(
        (r.error or "unknown").partition("\n")[0] for r in trials if r.state == "failed"
    )
    context.decide(
        STAGE,
        "end of search",
        f"The search ended ({ending}) after {len(trials)} trials, {new} of them in this session: "
        f"{len(context.front)} on the front, {sum(failures.values())} failed, "
        f"{sum(rejected.values())} proposals turned down before any evaluation.",
        ending=ending, failures=dict(failures), rejected=rejected, repaired=repaired,
        front=[r.number for r in context.front],
    )  # fmt: skip
