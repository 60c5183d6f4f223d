"""Quantisation of weights and activations, per layer."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.compression.base import Technique
from autocompress.compression.forms import FORMS, form_of
from autocompress.compression.parts import Part, Transform
from autocompress.compression.precisions import precision_choices, precision_settings
from autocompress.compression.refusals import EVERY_LAYER, Refusal, called_again
from autocompress.compression.simulation import (
    recalibrate,
    simulate_quantization,
    simulate_weights,
)
from autocompress.compression.stored.registry import weight_form
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities, Precision
from autocompress.core.space import Choice
from autocompress.graph.model_graph import Layer, ModelGraph

__all__ = ["Quantization", "recalibrate", "simulate_quantization", "simulate_weights"]


class Quantization(Technique):
    """Weight and activation bits per layer (see :data:`autocompress.compression.forms.FORMS`).

    In the elastic model weights are simulated; activations are quantised on realised graphs, by
    :func:`simulate_quantization`, where their tensors and ranges are known.
    """

    name = "quantization"
    order = 40
    reference = "Jacob et al. 2018, arXiv:1712.05877; Krishnamoorthi 2018, arXiv:1806.08342"

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One precision gene per layer, of the pairs that the device offers."""
        return precision_choices(graph, capabilities)

    def refusals(self, graph: ModelGraph, capabilities: Capabilities) -> list[Refusal]:
        """Layers that stay in floats, and forms that exist but are not offered on the device."""
        offered = {precision.name for precision in capabilities.precisions}
        forms = [Precision(*bits).name for bits in FORMS]
        reason = "the device's profile does not list it among what it runs well"
        return [
            *super().refusals(graph, capabilities),
            *(Refusal(EVERY_LAYER, self.name, reason, n) for n in forms if n not in offered),
        ]

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Shared weights, or a device that runs floats only."""
        if layer.calls > 1:
            return f"{called_again(layer)}: kept in float"
        return "the device's profile offers floats only"

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``weight_bits`` and ``activation_bits``."""
        return precision_settings(value)

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Rounds the weights to what is stored; None for 32 bits.

        Raises:
            RequestError: the policy's bits have no deployed form.
        """
        form_of(policy.weight_bits, policy.activation_bits, layer.name)
        if policy.weight_bits == 32 or policy.codebook is not None:
            return None  # shared values have a technique of their own
        forms = [weight_form(part.weight, policy.weight_bits) for part in parts]

        def round_weights(parts: Sequence[Part]) -> list[Part]:
            return [
                part.with_weight(form.rounded(part.weight, None))
                for part, form in zip(parts, forms, strict=True)
            ]

        return round_weights

    def realise(self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]) -> list[Part]:
        """The parts with their float weights: rounding them is left to the simulated graph.

        :func:`simulate_quantization` gives them the same values again (batch norm folding scales
        whole channels, which per-channel quantisation commutes with), and training continues from
        the floats.

        Raises:
            RequestError: the policy's bits have no deployed form.
        """
        form_of(policy.weight_bits, policy.activation_bits, layer.name)
        return list(parts)
