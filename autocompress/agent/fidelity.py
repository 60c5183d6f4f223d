"""At which fidelity a search runs, by how far inherited accuracies agree with trained ones."""

from __future__ import annotations

from dataclasses import replace

from autocompress.agent.planner import FEWEST_COMPARED, Plan
from autocompress.core.budget import Budget, Fidelity
from autocompress.evaluation.agreement import Agreement

#: Spearman's rho from which the order of inherited accuracies is trusted, and the lower end that
#: its interval must have. Reported correlations go from 0.87 (Bender et al. 2018) to none at all
#: (Yu et al. 2020, arXiv:1902.08142).
TRUSTED, TRUSTED_LOW = 0.7, 0.4


def choose_fidelity(
    plan: Plan, budget: Budget, agreement: Agreement | None, *, recipes: bool = False
) -> tuple[Fidelity, str]:
    """The fidelity of the search's trials, and why.

    Args:
        plan: made before inherited and trained accuracy were compared.
        budget: of the whole search.
        agreement: between the two; None where they were not compared.
        recipes: whether ways of training back are searched, too.

    Returns:
        Inherited accuracy where trials cannot be trained; also where its order can be trusted and
        what is saved buys something: more trials, or more training of the models that are chosen.
    """
    found = "" if agreement is None else agreement.words
    trusted = _is_trusted(agreement)
    if not plan.effort.short_steps:
        if agreement is None:
            how = "although its trust is not known"
        elif trusted:
            how = f"whose order can be trusted ({found})"
        else:
            how = f"although its trust is low ({found})"
        return Fidelity.INHERITED, (
            f"The budget leaves no time to train trials: they have their inherited accuracy, {how}."
        )
    if not trusted:
        why = "was not compared" if agreement is None else f"cannot be relied on ({found})"
        return Fidelity.SHORT, (
            f"Trials are trained for {plan.effort.short_steps} steps each: the order of inherited "
            f"accuracies {why}."
        )
    if recipes:
        return Fidelity.SHORT, (
            f"The order of inherited accuracies can be trusted ({found}), but ways of training "
            "back are searched, too, which only shows in trials that are trained."
        )
    if budget.seconds is None and budget.train_steps is None:
        return Fidelity.SHORT, (
            f"The order of inherited accuracies can be trusted ({found}), but the budget counts "
            "trials alone: not to train them would save nothing that it counts, so they are "
            "trained."
        )
    return Fidelity.INHERITED, (
        f"The order of inherited accuracies can be trusted ({found}): trials are not trained, "
        + ("which makes them many more." if budget.seconds and not budget.trials else
           "which leaves more training for the models that are chosen.")
    )  # fmt: skip


def _is_trusted(agreement: Agreement | None) -> bool:
    return (
        agreement is not None
        and agreement.known
        and agreement.pairs >= FEWEST_COMPARED
        and agreement.spearman >= TRUSTED
        and agreement.spearman_low >= TRUSTED_LOW
    )


def with_fidelity(
    plan: Plan, fidelity: Fidelity, budget: Budget, *, trial_seconds: float, left: float,
    workers: int = 1,
) -> Plan:  # fmt: skip
    """The plan with trials at another fidelity.

    Args:
        plan: as it is.
        fidelity: of the search's trials.
        budget: of the whole search.
        trial_seconds: what such a trial was seen to take.
        left: seconds left for the search.
        workers: trials at the same time.

    Returns:
        The plan with as many trials as fit where the budget limits seconds and not trials. Where
        it limits training steps, those that trials no longer take go to the models chosen.
    """
    effort, trials = plan.effort, plan.trials
    if budget.train_steps is not None and fidelity != plan.fidelity and not fidelity.trains:
        saved = plan.trials * effort.short_steps // max(1, plan.models)
        effort = replace(effort, final_steps=effort.final_steps + saved)
    if plan.seconds and budget.trials is None:
        trials = max(8, int(max(0.0, left) * workers / max(1e-3, trial_seconds)))
    return replace(plan, fidelity=fidelity, effort=effort, trials=trials)
