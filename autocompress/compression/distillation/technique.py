"""Distillation as something to search: how candidates are trained back is in their genes."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.compression.base import Technique
from autocompress.compression.distillation.points import find_points
from autocompress.compression.distillation.registry import available_distillations
from autocompress.compression.parts import Part, Transform
from autocompress.core.candidate import LayerPolicy, Recipe, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import RECIPE, Choice, Condition
from autocompress.graph.model_graph import Layer, ModelGraph

KIND = RECIPE + "distillation"
_DEFAULT = Recipe()
#: The default comes first: it is what the search uses where nobody asks for this technique.
WEIGHTS = (_DEFAULT.distillation_weight, 0.3, 0.5, 0.9)
TEMPERATURES = (_DEFAULT.temperature, 1.0, 2.0, 6.0)
FEATURE_WEIGHTS = (_DEFAULT.feature_weight, 0.1, 0.3)


class RecipeDistillation(Technique):
    """The recipe's kind of distillation, its weights and its temperature.

    It changes no layer: candidates that differ only in these genes have one size and one speed, and
    differ in accuracy where they are trained.
    """

    name = "distillation"
    order = 60
    reference = "Hinton et al. 2015, arXiv:1503.02531; see each kind for its own"
    on_request = True

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """Genes of the recipe; only kinds that have what they read in this network."""
        points = find_points(graph)
        fitting = {name: k for name, k in available_distillations().items() if k.fits(points)}
        kinds = (*fitting, "none")
        features = tuple(name for name, kind in fitting.items() if kind.reads != "outputs")
        taught = Condition(KIND, tuple(fitting))
        found = [
            Choice(KIND, kinds, "recipe", ordered=False),
            _weight("distillation_weight", WEIGHTS, taught),
            _weight("temperature", TEMPERATURES, taught),
        ]
        if features:
            found.append(_weight("feature_weight", FEATURE_WEIGHTS, Condition(KIND, features)))
        return found

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """The recipe's field of that name."""
        return {choice.name.removeprefix(RECIPE): value}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Nothing: layers stay as they are."""
        return None


def _weight(field: str, options: tuple[float, ...], condition: Condition) -> Choice:
    return Choice(RECIPE + field, options, "recipe", ordered=False, condition=condition)
