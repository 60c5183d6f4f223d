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
from autocompress.errors import RequestError
from autocompress.graph.model_graph import Layer, ModelGraph


class Technique(ABC):
    """One kind of compression.

    A technique offers choices per layer, writes the chosen value into the layer's policy, and
    turns a layer's parts into compressed ones. It may also offer choices of kind "recipe", for how
    a candidate is trained back; those belong to no layer. It must keep these promises:

    - :meth:`simulate` may look at the current weights, but the transform it returns must be
      differentiable with respect to them and must not keep a copy of them;
    - :meth:`realise` gives physically small parts that compute the same function (to 1e-4) as
      the simulated ones;
    - a policy that does not ask for the technique gives None, and costs nothing;
    - no answer depends on the layers or candidates that came before; what is remembered is
      remembered by the part's :attr:`~autocompress.compression.parts.Part.state`.

    Attributes:
        name: what users write in ``techniques=[...]``.
        order: techniques are applied in ascending order (see docs/techniques.md).
        reference: the paper the method comes from.
        on_request: whether it is left out of "all techniques", and used only where it is named.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    reference: ClassVar[str]
    on_request: ClassVar[bool] = False

    @classmethod
    def of(cls, variants: Sequence[str]) -> Technique:
        """The technique restricted to variants, asked for as ``"<name>:<variant>"``.

        Args:
            variants: none of them means the technique as it usually is.

        Raises:
            RequestError: an unknown variant, or a technique without any.
        """
        if variants:
            raise RequestError(
                f"technique {cls.name!r} has no variants such as {variants[0]!r}; ask for "
                f"{cls.name!r}"
            )
        return cls()

    @abstractmethod
    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """The genes it adds; empty when it cannot pay.

        They are named ``"<gene>:<layer or group>"``, or ``"recipe:<field>"`` if of kind "recipe".
        """

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
        """The fields that ``value`` of ``choice`` stands for: the policy's, or the recipe's."""

    def looks_at_inputs(self, layer: Layer) -> bool:
        """Whether second moments of the layer's inputs help it (``Part.inputs``)."""
        return False

    @abstractmethod
    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """The transform that makes a layer's parts behave as compressed, or None."""

    def realise(self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]) -> list[Part]:
        """The layer's parts, compressed for good."""
        transform = self.simulate(layer, policy, parts)
        return list(parts) if transform is None else transform(parts)
