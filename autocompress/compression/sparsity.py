"""Sparsity: weights of a layer become zero, anywhere or in a pattern.

It makes the entropy-coded file smaller. What else it gains is for a device's profile to say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part, Transform
from autocompress.compression.patterns.base import Pattern
from autocompress.compression.patterns.n_of_m import NOfM
from autocompress.compression.patterns.registry import make_pattern
from autocompress.compression.patterns.unstructured import Unstructured
from autocompress.compression.refusals import Refusal
from autocompress.core.candidate import UNSTRUCTURED, LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.errors import RequestError
from autocompress.graph.model_graph import Layer, ModelGraph

SPARSITY = "sparsity:"
RATIOS = (0.0, 0.5, 0.7, 0.85)


class Sparsity(Technique):
    """Zeros per layer.

    Args:
        patterns: the patterns that are offered, by name; None offers zeros anywhere where they pay,
            and the patterns that the device computes faster with.
    """

    name = "sparsity"
    order = 30
    reference = "Han et al. 2015, arXiv:1506.02626; Mishra et al. 2021, arXiv:2104.08378"

    def __init__(self, patterns: Sequence[str] | None = None) -> None:
        self.patterns = None if patterns is None else tuple(make_pattern(n) for n in patterns)

    @classmethod
    def of(cls, variants: Sequence[str]) -> Sparsity:
        """With zeros in these patterns, such as "2:4" and "block:1x4"."""
        return cls(variants or None)

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per layer, when zeros pay on the device or in the packed file.

        Options are shares of zeros that lie anywhere, and texts such as "2:4" or "block:1x4@0.5".
        """
        offered = self._offered(capabilities)
        found = []
        for layer in graph.layers.values():
            fitting = [pattern for pattern in offered if pattern.refusal(layer) is None]
            options = [option for pattern in fitting for option in _options(pattern)]
            if options:
                ordered = len(fitting) == 1  # shares of one pattern form a scale
                found.append(Choice(SPARSITY + layer.name, (0.0, *options), ordered=ordered))
        return found

    def refusals(self, graph: ModelGraph, capabilities: Capabilities) -> list[Refusal]:
        """Each layer that an offered pattern does not fit; all layers where none is offered."""
        offered = self._offered(capabilities)
        if not offered:
            return super().refusals(graph, capabilities)
        return [
            Refusal(layer.name, self.name, reason, pattern.name)
            for layer in graph.layers.values()
            for pattern in offered
            if (reason := pattern.refusal(layer)) is not None
        ]

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Zeros do not pay."""
        return "zeros make nothing faster on this device, and the packed file was not asked for"

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``sparsity`` and ``pattern``."""
        if not isinstance(value, str):
            return {"sparsity": value, "pattern": UNSTRUCTURED}
        name, _, share = value.partition("@")
        pattern = make_pattern(name)
        sparsity = pattern.sparsity if isinstance(pattern, NOfM) else float(share)
        return {"sparsity": sparsity, "pattern": name}

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Masks the smallest weights; the masks are recomputed from the weights at every call.

        Parts that the pattern does not fit, of a narrowed or factorised layer, stay as they are.

        Raises:
            RequestError: the layer cannot have zeros in the policy's pattern.
        """
        if policy.sparsity == 0.0:
            return None
        pattern = fitting_pattern(layer, policy)

        def mask(parts: Sequence[Part]) -> list[Part]:
            return [
                part.with_weight(
                    part.weight * magnitude_mask(part.weight, policy.sparsity, pattern)
                )
                if policy.sparsity_of(part.weight.shape)
                else part
                for part in parts
            ]

        return mask

    def _offered(self, capabilities: Capabilities) -> tuple[Pattern, ...]:
        if self.patterns is not None:
            return self.patterns
        anywhere = capabilities.sparsity_pays or capabilities.stores_packed
        names = (*((UNSTRUCTURED,) if anywhere else ()), *capabilities.sparsity_patterns)
        return tuple(make_pattern(name) for name in dict.fromkeys(names))


def fitting_pattern(layer: Layer, policy: LayerPolicy) -> Pattern:
    """The policy's pattern, in which the layer can have zeros.

    Raises:
        RequestError: it cannot; says why.
    """
    pattern = make_pattern(policy.pattern)
    refusal = pattern.refusal(layer)
    if refusal is not None:
        raise RequestError(
            f"layer {layer.name!r} cannot have zeros in the pattern {pattern.name}: {refusal}; "
            "use another pattern for it, or none"
        )
    return pattern


def magnitude_mask(
    weight: torch.Tensor, sparsity: float, pattern: Pattern | None = None
) -> torch.Tensor:
    """1 for the weights that stay and 0 for the smallest ones that the pattern lets go.

    Without a pattern exactly ``round(sparsity * weight.numel())`` entries are 0; ties break by
    position.
    """
    return (pattern or Unstructured()).mask(weight.detach().abs(), sparsity)


def _options(pattern: Pattern) -> tuple[Scalar, ...]:
    if isinstance(pattern, Unstructured):
        return RATIOS[1:]
    if isinstance(pattern, NOfM):
        return (pattern.name,)
    return tuple(f"{pattern.name}@{share}" for share in RATIOS[1:])
