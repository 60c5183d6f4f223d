"""How the budget is spread over the stages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from autocompress.core.budget import Budget, Fidelity
from autocompress.elastic.training import ElasticTraining
from autocompress.evaluation.evaluator import QUANTIZED_SHARE, Effort

#: Seconds to export, re-open, check and time one small model, before the baselines' own cost is
#: known.
VERIFY_SECONDS = 3.0
#: Shares of the time left after inspection: a named space must train its weights first.
_SPACE = {
    "baseline": 0.18, "price": 0.10, "elasticise": 0.17, "trust": 0.07, "search": 0.25,
    "finalise": 0.23,
}  # fmt: skip
_MODEL = {"price": 0.11, "sensitise": 0.08, "trust": 0.08, "search": 0.37, "finalise": 0.36}
#: Fixed efforts when the budget counts trials, so that results do not depend on speed.
_FIXED_TRAINING = 240
_FIXED_SHORT = 20
_FIXED_FINAL = 120
#: Peak learning rate of fine-tunes: gentle with a model that is trained already.
_GENTLE_RATE, _FRESH_RATE = 5e-4, 2e-3
#: Trials that a search should have room for.
_WANTED_TRIALS = 48
_LEAST_TRIALS = 20
#: Fewer training steps than this do not change which candidate is better.
_LEAST_STEPS = 8
_MOST_MODELS = 16
#: Candidates that inherited and trained accuracy are compared of: fewer do not tell a good order
#: from a bad one, more are not worth their training.
FEWEST_COMPARED, MOST_COMPARED = 8, 12
#: The same where the budget counts trials, and the share of them that a comparison may be of.
_MOST_COUNTED, _COUNTED_SHARE = 8, 4
#: Validation examples that trials are judged by: two candidates on the same 2,000 examples, one in
#: twenty of which they answer differently, are told apart from a difference of 1 point on.
VAL_LIMIT = 2000


@dataclass(frozen=True)
class Plan:
    """What will be done, and what it is expected to cost.

    Attributes:
        seconds: stage to seconds, where the budget is in seconds; empty otherwise.
        training_steps: steps to train a named space's largest network.
        elastic_steps: steps of elastic training.
        fidelity: the fidelity of the search's trials.
        effort: steps of each fidelity.
        trials: trials expected (or asked for).
        models: models to finalise and verify.
        threads: torch threads.
        step_seconds: a typical candidate's training step, where it was measured.
        compared: candidates that inherited and trained accuracy are compared of; 0 for no such
            comparison.
        compared_steps: training steps of each of them.
        compared_note: the comparison in words, or why there is none.
        sentences: the plan in words.
    """

    seconds: dict[str, float]
    training_steps: int
    elastic_steps: int
    fidelity: Fidelity
    effort: Effort
    trials: int
    models: int
    threads: int = 1
    step_seconds: float = 0.0
    compared: int = 0
    compared_steps: int = 0
    compared_note: str = ""
    sentences: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``plan.json`` holds."""
        notes = {
            "baseline": f"train the largest network for {self.training_steps} steps"
            if self.training_steps
            else "measure the original, fp32 and int8",
            "elasticise": f"train the shared weights for {self.elastic_steps} steps",
            "trust": self.compared_note,
            "search": f"about {self.trials} trials at fidelity {self.fidelity.value!r}",
            "finalise": f"{self.models} models, {self.effort.final_steps} steps each",
        }
        stages = [
            {"name": name, "seconds": round(seconds, 1), "note": notes.get(name, "")}
            for name, seconds in self.seconds.items()
        ] or [{"name": n, "seconds": None, "note": note} for n, note in notes.items()]
        return {
            "stages": stages,
            "trials": self.trials,
            "models": self.models,
            "fidelity": self.fidelity.value,
            "threads": self.threads,
            "step_seconds": self.step_seconds,
            "compared": self.compared,
            "compared_steps": self.compared_steps,
            "compared_note": self.compared_note,
            "effort": asdict(self.effort),
            "training_steps": self.training_steps,
            "elastic_steps": self.elastic_steps,
            "sentences": list(self.sentences),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The plan that :meth:`to_json` wrote."""
        return cls(
            seconds={s["name"]: s["seconds"] for s in value["stages"] if s["seconds"] is not None},
            training_steps=value["training_steps"],
            elastic_steps=value["elastic_steps"],
            fidelity=Fidelity(value["fidelity"]),
            effort=Effort(**value["effort"]),
            trials=value["trials"],
            models=value["models"],
            threads=value["threads"],
            step_seconds=value["step_seconds"],
            compared=value.get("compared", 0),  # not in runs of earlier versions
            compared_steps=value.get("compared_steps", 0),
            compared_note=value.get("compared_note", ""),
            sentences=tuple(value["sentences"]),
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured before planning.

    Attributes:
        step_seconds: one float training step of the original.
        quantized_step_seconds: one fake-quantised training step of it, always in float32.
        evaluation_seconds: one evaluation without training.
        spent_seconds: what inspection has taken.
        typical: cost of a typical candidate's step, relative to the original's.
        epoch_steps: steps in one pass over the training examples.
        from_scratch: whether the weights have to be trained first (a named space).
        threads: torch threads that steps were measured with.
        bfloat16: whether steps were measured in bfloat16.
        elastic_step_seconds: one step of elastic training; None where it was not measured.
    """

    step_seconds: float
    quantized_step_seconds: float
    evaluation_seconds: float
    spent_seconds: float
    typical: float
    epoch_steps: int
    from_scratch: bool
    threads: int = 1
    bfloat16: bool = False
    elastic_step_seconds: float | None = None


def make_plan(budget: Budget, costs: Costs, *, workers: int = 1) -> Plan:
    """Spread ``budget`` over the stages."""
    plan = _by_time(budget, costs, workers) if budget.seconds else _by_count(budget, costs)
    return replace(plan, threads=costs.threads)


def _by_count(budget: Budget, costs: Costs) -> Plan:
    trials = budget.trials or _WANTED_TRIALS
    training = _FIXED_TRAINING if costs.from_scratch else 0
    short, final, elastic, models = _FIXED_SHORT, _FIXED_FINAL, training, min(_MOST_MODELS, trials)
    models = min(models, budget.models or models)
    compared = min(_MOST_COUNTED, trials // _COUNTED_SHARE)
    compared = compared if compared >= FEWEST_COMPARED else 0
    if budget.train_steps is not None:
        wanted = training + elastic + (compared + trials) * short + models * final
        share = min(1.0, budget.train_steps / max(1, wanted))
        training, elastic = int(training * share), int(elastic * share)
        short, final = int(short * share), int(final * share)
    effort = Effort(
        short_steps=short,
        final_steps=final,
        val_limit=VAL_LIMIT,
        learning_rate=_FRESH_RATE if costs.from_scratch else _GENTLE_RATE,
    )
    fidelity = Fidelity.SHORT if short else Fidelity.INHERITED
    if not short:
        compared, note = 0, _NO_STEPS
    elif not compared:
        note = f"left out: a quarter of {trials} trials is fewer than {FEWEST_COMPARED} candidates"
    else:
        note = _comparison(compared, short)
    return Plan(
        {}, training, elastic, fidelity, effort, trials, models,
        compared=compared, compared_steps=short if compared else 0, compared_note=note,
        sentences=(
            f"The budget counts trials: {trials} trials with {short} steps each, then the best "
            f"{models} are trained for {final} steps; nothing depends on the machine's speed."
            + (f" {compared} candidates come before them, which are not counted." * bool(compared)),
        ),
    )  # fmt: skip


_NO_STEPS = "left out: the budget leaves no steps to train candidates by"


def _comparison(candidates: int, steps: int) -> str:
    return f"compare {candidates} candidates, untrained and after {steps} steps each"


def _by_time(budget: Budget, costs: Costs, workers: int) -> Plan:
    total = budget.seconds or 0.0
    left = max(1.0, total - costs.spent_seconds)
    models = _fitting_models(0.3 * left / VERIFY_SECONDS, budget.models)
    verify = min(0.3 * left, models * VERIFY_SECONDS)
    shares = _SPACE if costs.from_scratch else _MODEL
    seconds = {name: share * (left - verify) for name, share in shares.items()}
    seconds["verify"] = verify
    step = max(1e-4, costs.step_seconds)
    training = elastic = 0
    if costs.from_scratch:
        training = _clamp(seconds["baseline"] / step, 20, 60 * costs.epoch_steps)
        # an elastic step runs the largest network, its teacher, and some drawn ones
        sandwich = step * (1.4 + ElasticTraining().drawn * costs.typical)
        elastic = _clamp(
            seconds["elasticise"] / (costs.elastic_step_seconds or sandwich),
            20, 120 * costs.epoch_steps,
        )  # fmt: skip
    # most candidates are quantised: part of their training is, or all of it where the weights of a
    # trained model keep their structure, as they do in about half of the candidates
    share = QUANTIZED_SHARE if costs.from_scratch else (QUANTIZED_SHARE + 1) / 2
    step = (1 - share) * step + share * costs.quantized_step_seconds
    step *= costs.typical
    short = _short_steps(seconds["search"] * workers, costs, step, budget.trials)
    fidelity = Fidelity.SHORT if short else Fidelity.INHERITED
    compared_steps = short or _LEAST_STEPS
    compared = _affordable(seconds["trust"] * workers, costs, compared_steps * step)
    if not compared:
        seconds = _without_trust(seconds)
    trial_seconds = max(1e-3, costs.evaluation_seconds + short * step)
    trials = budget.trials or max(8, int(seconds["search"] * workers / trial_seconds))
    per_model = seconds["finalise"] * workers / models
    final = _clamp(per_model / step, 1, 30 * costs.epoch_steps)
    if budget.train_steps is not None:
        wanted = training + elastic + trials * short + models * final + compared * compared_steps
        share = min(1.0, budget.train_steps / max(1, wanted))
        training, elastic = int(training * share), int(elastic * share)
        short, final = int(short * share), int(final * share)
        compared_steps = int(compared_steps * share)
        fidelity = Fidelity.SHORT if short else Fidelity.INHERITED
    effort = Effort(
        short_steps=short,
        final_steps=final,
        val_limit=VAL_LIMIT,
        learning_rate=_FRESH_RATE if costs.from_scratch else _GENTLE_RATE,
        bfloat16=costs.bfloat16,
        final_seconds=1.5 * per_model,
    )
    if not compared_steps:
        compared, note, seconds = 0, _NO_STEPS, _without_trust(seconds)
    else:
        note = _comparison(compared, compared_steps) if compared else _TOO_DEAR
    sentences = [
        f"One training step of the original takes {costs.step_seconds * 1e3:.0f} ms, of a typical "
        f"candidate {step * 1e3:.0f} ms, one evaluation "
        f"{costs.evaluation_seconds:.1f} s.",
        f"{trials} trials fit into {seconds['search']:.0f} s "
        + (f"with {short} training steps each" if short else "with inherited weights, untrained")
        + f"; {models} models are then trained for up to {final} steps and verified.",
    ]
    if fidelity == Fidelity.INHERITED:
        sentences.append(
            "The budget leaves no time to train trials: candidates far from the original will "
            "look worse than they could be."
        )
    return Plan(
        seconds,
        training,
        elastic,
        fidelity,
        effort,
        trials,
        models,
        step_seconds=step,
        compared=compared,
        compared_steps=compared_steps if compared else 0,
        compared_note=note,
        sentences=tuple(sentences),
    )


_TOO_DEAR = (
    f"left out: {max(_SPACE['trust'], _MODEL['trust']):.0%} of the budget would train fewer than "
    f"{FEWEST_COMPARED} candidates"
)


def _affordable(seconds: float, costs: Costs, training: float) -> int:
    """Candidates that can be evaluated twice, trained once; 0 when too few to tell anything."""
    each = max(1e-3, 2 * costs.evaluation_seconds + training)
    compared = min(MOST_COMPARED, int(seconds / each))
    return compared if compared >= FEWEST_COMPARED else 0


def _without_trust(seconds: dict[str, float]) -> dict[str, float]:
    """The search gets the time that no comparison needs."""
    trust = seconds.get("trust", 0.0)
    return {**seconds, "trust": 0.0, "search": seconds["search"] + trust}


#: Stages that are still to come once the baselines are there.
_LATER = ("price", "sensitise", "elasticise", "trust", "search", "finalise")
_MOST_VERIFYING = 0.35


@dataclass(frozen=True, slots=True)
class VerificationCost:
    """What it was seen to cost to export, check and time models.

    Attributes:
        once: seconds however few there are: starting processes, timing the baselines again.
        each: seconds for every model.
    """

    once: float
    each: float

    @classmethod
    def of(cls, exporting: float, timing: float, timed: float, models: int) -> VerificationCost:
        """From what ``models`` took together.

        Args:
            exporting: seconds to export and check them.
            timing: seconds to time them, starting processes included.
            timed: seconds of it in which they really ran.
            models: how many.
        """
        return cls(once=timing, each=(exporting + min(timed, timing)) / models)


def with_verification(
    plan: Plan, cost: VerificationCost, left: float, most: int | None = None
) -> Plan:
    """The plan with the time that exporting and checking a model was seen to take.

    Args:
        plan: made before anything was exported.
        cost: what the baselines took.
        left: seconds left of the budget.
        most: models that were asked for at the most.

    Returns:
        The same plan when the budget is not in seconds; otherwise one that keeps enough for
        verification, with as many models as take no more than about a third of what is left.
    """
    if not plan.seconds:
        return plan
    fitting = (_MOST_VERIFYING * left - cost.once) / max(1e-3, cost.each)
    models = _fitting_models(fitting, most)
    verify = cost.once + models * cost.each
    planned = sum(plan.seconds.get(name, 0.0) for name in _LATER)
    scale = max(0.0, left - verify) / max(1e-3, planned)
    seconds = {
        name: value * scale if name in _LATER else value for name, value in plan.seconds.items()
    }
    plan = replace(plan, seconds={**seconds, "verify": verify}, models=models)
    compared = min(plan.compared, int(plan.compared * scale + 0.5))
    if not plan.compared or compared == plan.compared:
        return plan
    if compared < FEWEST_COMPARED:
        return replace(
            plan, seconds=_without_trust(plan.seconds), compared=0, compared_steps=0,
            compared_note=_TOO_DEAR,
        )  # fmt: skip
    note = _comparison(compared, plan.compared_steps)
    return replace(plan, compared=compared, compared_note=note)


def _short_steps(seconds: float, costs: Costs, step: float, trials: int | None) -> int:
    """Steps that each trial can be trained for; 0 when too few to matter.

    Few trials that were trained tell more than many that were not, down to a fixed number.
    """
    for wanted in (trials,) if trials is not None else (_WANTED_TRIALS, _LEAST_TRIALS):
        steps = int((seconds / wanted - costs.evaluation_seconds) / step)
        if steps >= _LEAST_STEPS:
            return min(steps, 2 * costs.epoch_steps)
    return 0


def _fitting_models(fitting: float, most: int | None) -> int:
    """As many as fit, 3 at the least, unless fewer are asked for."""
    return min(most or _MOST_MODELS, max(3, min(_MOST_MODELS, int(fitting))))


def _clamp(value: float, low: int, high: int) -> int:
    return int(max(low, min(high, value)))
