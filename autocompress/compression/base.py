"""What a compression technique is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from autocompress.compression.parts import Part, Transform
from autocompress.compression.refusals import Refusal
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph


class Technique(ABC):
    """One kind of compression.

    A technique offers choices per layer, writes the chosen value into the layer's policy, and
    turns a layer's parts into compressed ones. It must keep these promises:

    - :meth:`simulate` may look at the current weights, but the transform it returns must be
      differentiable with respect to them and must not keep a copy of them;
    - :meth:`realise` gives physically small parts that compute the same function (to 1e-4) as
      the simulated ones;
    - a policy that does not ask for the technique gives None, and costs nothing;
    - no state is kept between layers or candidates.

    Attributes:
        name: what users write in ``techniques=[...]``.
        order: techniques are applied in ascending order (see docs/techniques.md).
        reference: the paper the method comes from.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    reference: ClassVar[str]

    @abstractmethod
    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """The genes it adds, named ``"<gene>:<layer or group>"``; empty when it cannot pay."""

    def refusals(self, graph: ModelGraph, capabilities: Capabilities) -> list[Refusal]:
        """The layers (or channel groups) that :meth:`choices` has no gene for, and why.

        Override :meth:`refusal`, or this where the technique's genes are not of layers.
        """
        offered = {choice.name.partition(":")[2] for choice in self.choices(graph, capabilities)}
        return [
            Refusal(layer.name, self.name, self.refusal(layer, capabilities))
            for layer in graph.layers.values()
            if layer.name not in offered
        ]

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Why there is no gene for ``layer``, in words."""
        return f"{self.name} offers nothing for it on this device"

    @abstractmethod
    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """The policy fields that ``value`` of ``choice`` stands for."""

    @abstractmethod
    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """The transform that makes a layer's parts behave as compressed, or None."""

    def realise(self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]) -> list[Part]:
        """The layer's parts, compressed for good."""
        transform = self.simulate(layer, policy, parts)
        return list(parts) if transform is None else transform(parts)
