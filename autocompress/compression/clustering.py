"""Weight sharing: a layer's weights are indices into a small table of values."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part, Transform
from autocompress.compression.refusals import called_again
from autocompress.compression.stored.shared import share
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph

CODEBOOK = "codebook:"
#: Values offered: 16 have indices of 4 bits, the others of 8 (fewer bits once packed).
SIZES = (256, 32, 16)
#: Weights below which even the smallest codebook is not worth its table.
_FEWEST = 2 * SIZES[-1]


class Clustering(Technique):
    """A codebook per layer; None keeps weights of their own.

    The values are trained after they have been found, each by all of its weights together. In a
    layer that computes in integers the table holds int8 codes; otherwise floats. Whatever bits a
    policy asks for beside a codebook only decide that.
    """

    name = "clustering"
    order = 50
    reference = "Han et al. 2016, arXiv:1510.00149"

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per layer that is called once, where the packed file counts."""
        if not capabilities.stores_packed:
            return []
        return [
            Choice(CODEBOOK + layer.name, (None, *SIZES))
            for layer in graph.layers.values()
            if layer.calls == 1 and layer.parameters >= _FEWEST
        ]

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Codebooks do not pay, or the layer is called twice or too small."""
        if not capabilities.stores_packed:
            return "codebooks make nothing faster, and the packed file was not asked for"
        if layer.calls > 1:
            return called_again(layer)
        return f"its {layer.parameters} weights are too few to share {SIZES[-1]} values"

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``codebook``."""
        return {"codebook": value}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Moves each weight to the value it shares; the values follow the weights."""
        if policy.codebook is None:
            return None
        shared = [share(part.weight, policy.codebook, scaled=layer.normed) for part in parts]

        def move(parts: Sequence[Part]) -> list[Part]:
            return [
                part.with_weight(moved(part.weight))
                for part, moved in zip(parts, shared, strict=True)
            ]

        return move

    def realise(self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]) -> list[Part]:
        """The parts with their own weights: finding the values is left to the simulated graph.

        It finds the same ones: a batch norm that is folded in between scales whole channels, and
        the values of such a layer are relative to its channels' largest weights.
        """
        return list(parts)
