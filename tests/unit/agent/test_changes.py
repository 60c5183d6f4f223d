"""What a candidate changes, in words."""

from __future__ import annotations

import pytest

from autocompress.agent.changes import changes_of
from autocompress.core.candidate import Candidate, LayerPolicy, Recipe
from tests.unit.networks import space


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(), "nothing"),
        (Recipe(distillation="none"), "trained on labels alone"),
        (Recipe(distillation="relation"), "distillation relation"),
        (
            Recipe(distillation_weight=0.3, temperature=6.0, feature_weight=0.1),
            "distillation response, distillation weight 0.3, temperature 6, feature weight 0.1",
        ),
    ],
    ids=lambda value: "" if isinstance(value, Recipe) else value,
)
def test_how_it_was_trained_back(recipe: Recipe, said: str) -> None:
    assert changes_of(space("resnet"), Candidate(recipe=recipe)) == said


def test_beside_what_became_smaller() -> None:
    candidate = Candidate(layers={"fc": LayerPolicy(rank=4)}, recipe=Recipe(distillation="self"))
    assert changes_of(space("resnet"), candidate) == "low rank in 1 layer; distillation self"
