"""What the search says before it begins, and which examples its accuracies are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.agent.stages.search import _say_if_recipes_are_held, examples_seen
from autocompress.core.budget import Fidelity
from autocompress.core.space import Choice
from autocompress.evaluation.task import Task


@pytest.mark.parametrize(
    ("fidelity", "said"), [(Fidelity.SHORT, []), (Fidelity.INHERITED, ["recipe:temperature"])]
)
def test_recipes_that_could_have_been_searched_are_named(
    fidelity: Fidelity, said: list[str]
) -> None:
    choices = (
        Choice("recipe:temperature", (4.0, 2.0), "recipe"),
        Choice("recipe:distillation", ("response",), "recipe"),
        Choice("width:a", (8, 4)),
    )
    decided: list[dict[str, Any]] = []
    context: Any = SimpleNamespace(
        space=SimpleNamespace(choices=choices), plan=SimpleNamespace(fidelity=fidelity),
        decide=lambda *words, **evidence: decided.append({"words": words, **evidence}),
    )  # fmt: skip
    _say_if_recipes_are_held(context)
    assert [gene for one in decided for gene in one["genes"]] == said
    # it may have been the comparison that chose not to train, and not the lack of time
    assert all("no time" not in word for one in decided for word in one["words"])


@pytest.mark.parametrize(
    ("task", "expected"),
    [(Task(), [(5, 5), (5, 9)]), (Task.regression(), [None, None])],
    ids=["shares", "errors"],
)
def test_accuracies_are_shares_of_the_examples_looked_at(
    task: Task, expected: list[tuple[int, int] | None]
) -> None:
    evaluator = SimpleNamespace(
        trial_split=lambda: range(5), data=SimpleNamespace(val=range(9))
    )  # fmt: skip
    context: Any = SimpleNamespace(request=SimpleNamespace(task=task), evaluator=evaluator)
    pairs = [(Fidelity.INHERITED, Fidelity.SHORT), (Fidelity.SHORT, Fidelity.FINAL)]
    assert [examples_seen(context, *pair) for pair in pairs] == expected
