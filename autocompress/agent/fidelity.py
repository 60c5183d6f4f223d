"""At which fidelity a search runs, by how far inherited accuracies agree with trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autocompress.agent.planner import FEWEST_COMPARED, Plan
from autocompress.agent.selection import CLOSE, standing
from autocompress.core.budget import Budget, Fidelity
from autocompress.evaluation.agreement import Agreement

#: Spearman's rho from which the order of inherited accuracies is trusted, and the lower end that
#: its interval must have. Reported correlations go from 0.87 (Bender et al. 2018) to none at all
#: (Yu et al. 2020, arXiv:1902.08142).
TRUSTED, TRUSTED_LOW = 0.7, 0.4
#: The same of Kendall's tau-b: what it is of normal pairs with that rho, 2/pi asin(2 sin(pi/6 rho))
#: (Kruskal 1958, Ordinal Measures of Association), rounded down.
TRUSTED_TAU, TRUSTED_TAU_LOW = 0.5, 0.25
#: Share of the candidates whose accuracies must differ by more than their error.
_DISTINCT = 2 / 3
#: Share of the candidates that must be as near to the original inherited as trained.
_SAME = 0.75


@dataclass(frozen=True, slots=True)
class Levels:
    """Whether inherited accuracies are as high as trained ones, and not only in the same order.

    A search holds bounds on accuracy against them, and its finalists are chosen by how near to the
    original they are.

    Attributes:
        pairs: candidates with both.
        same: how many of them have the same :func:`~autocompress.agent.selection.standing`.
        change: mean of the trained score less the inherited one, relative to the original's score;
            NaN where that is not positive.
    """

    pairs: int
    same: int
    change: float

    @classmethod
    def of(cls, inherited: Sequence[float], trained: Sequence[float], original: float) -> Levels:
        """Compare scores of the same candidates, larger is better, with the original's.

        Args:
            inherited: a score of each candidate, untrained.
            trained: the scores of the same ones, trained.
            original: of the original, on the same examples.
        """
        pairs = list(zip(inherited, trained, strict=True))
        same = sum(standing(a, original) == standing(b, original) for a, b in pairs)
        change = sum(b - a for a, b in pairs) / (len(pairs) * original) if pairs else float("nan")
        return cls(len(pairs), same, change if original > 0 else float("nan"))

    @property
    def agree(self) -> bool:
        """Whether they are high enough to be judged by."""
        return bool(self.pairs) and (
            self.same >= _SAME * self.pairs or abs(self.change) <= 1 - CLOSE
        )

    @property
    def words(self) -> str:
        """In words, such as ``"training changes them by +50% of the original's ..."``."""
        found = f"{self.same} of {self.pairs} are as near to the original untrained as trained"
        if self.change == self.change:
            found += f", and training changes them by {self.change:+.0%} of its accuracy on average"
        return found


def choose_fidelity(
    plan: Plan,
    budget: Budget,
    agreement: Agreement | None,
    *,
    levels: Levels | None = None,
    recipes: bool = False,
    bounded: bool = False,
) -> tuple[Fidelity, str]:
    """The fidelity of the search's trials, and why.

    Args:
        plan: made before inherited and trained accuracy were compared.
        budget: of the whole search.
        agreement: between the two; None where they were not compared.
        levels: how high they are; None where that is not known.
        recipes: whether ways of training back are searched, too.
        bounded: whether accuracy, or what is lost of it, has a bound.

    Returns:
        Inherited accuracy where trials cannot be trained; also where its order can be trusted, it
        is about as high as the trained one, and what is saved buys something: more trials, or more
        training of the models that are chosen.
    """
    doubt = _doubt(agreement)
    found = "" if agreement is None else agreement.words
    if not plan.effort.short_steps:
        if agreement is None:
            how = "although its trust is not known"
        elif doubt:
            how = f"although its trust is low: its order {doubt}"
        else:
            how = f"whose order can be trusted ({found})"
            if levels is not None and not levels.agree:
                how += f", but not how high it is: {levels.words}"
        return Fidelity.INHERITED, (
            f"The budget leaves no time to train trials: they have their inherited accuracy, {how}."
        )
    if doubt:
        return Fidelity.SHORT, (
            f"Trials are trained for {plan.effort.short_steps} steps each: the order of inherited "
            f"accuracies {doubt}."
        )
    but = _why_trained_yet(budget, levels, recipes=recipes, bounded=bounded)
    if but:
        return Fidelity.SHORT, (
            f"The order of inherited accuracies can be trusted ({found}), but {but}."
        )
    return Fidelity.INHERITED, (
        f"The order of inherited accuracies can be trusted ({found}): trials are not trained, "
        + ("which makes them many more." if budget.seconds and not budget.trials else
           "which leaves more training for the models that are chosen.")
    )  # fmt: skip


def _doubt(agreement: Agreement | None) -> str:
    """Why the order is not trusted, in words; empty where it is."""
    if agreement is None:
        return "was not compared"
    if not agreement.known:
        return f"cannot be relied on ({agreement.words})"
    if agreement.pairs < FEWEST_COMPARED:
        return (
            f"is known of {agreement.pairs} candidates alone, fewer than {FEWEST_COMPARED} "
            f"({agreement.words})"
        )
    if agreement.distinct < _DISTINCT * agreement.pairs:
        return (
            f"cannot be relied on: {agreement.pairs} candidates have {agreement.distinct} different"
            f" accuracies, the others are ties ({agreement.words})"
        )
    trusted = (
        agreement.spearman >= TRUSTED
        and agreement.spearman_low >= TRUSTED_LOW
        and agreement.kendall >= TRUSTED_TAU
        and agreement.kendall_low >= TRUSTED_TAU_LOW
    )
    return "" if trusted else f"cannot be relied on ({agreement.words})"


def _why_trained_yet(budget: Budget, levels: Levels | None, *, recipes: bool, bounded: bool) -> str:
    """Why trials are trained although the order of inherited accuracies can be trusted."""
    if recipes:
        return (
            "ways of training back are searched, too, which only shows in trials that are trained"
        )
    if bounded:
        return (
            "a bound on accuracy is held against how high it is, and not against its order: trials "
            "are trained"
        )
    if levels is None or not levels.agree:
        why = "it is not known how high they are" if levels is None else levels.words
        return (
            "finalists are chosen by how near to the original trials are, and of inherited "
            f"accuracies {why}: trials are trained"
        )
    if budget.seconds is None and budget.train_steps is None:
        return (
            "the budget counts trials alone: not to train them would save nothing that it counts, "
            "so they are trained"
        )
    return ""


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
