"""The precision gene: one choice per layer among the bit-width pairs that a device offers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ModelGraph

PRECISION = "precision:"
_NAME = re.compile(r"w(\d+)a(\d+)")


def precision_choices(graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
    """One gene per layer that is called once, options named "fp32", "w8a8", "w4a8" and so on.

    Those of an embedding are the bits that weights come in, such as "w8a32": it computes nothing,
    and looking rows up in fewer bytes is no slower anywhere.
    """
    options = tuple(p.name for p in capabilities.precisions)
    bits = dict.fromkeys(p.weight_bits for p in capabilities.precisions)
    stored = tuple("fp32" if b == 32 else f"w{b}a32" for b in bits)
    if len(options) < 2:
        return []
    return [
        Choice(PRECISION + layer.name, offered, ordered=False)
        for layer in graph.layers.values()
        if layer.calls == 1 and len(offered := stored if layer.kind == "embedding" else options) > 1
    ]


def precision_settings(name: Scalar | None) -> dict[str, Scalar | None]:
    """``weight_bits`` and ``activation_bits`` of a precision's name.

    Raises:
        RequestError: the name is no precision.
    """
    if name == "fp32":
        return {"weight_bits": 32, "activation_bits": 32}
    found = _NAME.fullmatch(str(name))
    if found is None:
        raise RequestError(f"precision is {name!r}; use 'fp32' or such as 'w8a8', 'w4a8'")
    return {"weight_bits": int(found[1]), "activation_bits": int(found[2])}


def precision_name(policy: LayerPolicy) -> str:
    """The precision's name of a policy."""
    if policy.weight_bits == policy.activation_bits == 32:
        return "fp32"
    return f"w{policy.weight_bits}a{policy.activation_bits}"
