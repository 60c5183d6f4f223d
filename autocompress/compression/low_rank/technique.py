"""Low rank: a layer as several smaller ones, whose product approximates its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch
from torch import nn

from autocompress.compression.base import Technique
from autocompress.compression.low_rank.base import Split
from autocompress.compression.low_rank.memory import Memory
from autocompress.compression.low_rank.options import WORTHWHILE, rank_options, rank_settings
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.parts import Part, Transform
from autocompress.compression.refusals import EVERY_LAYER, Refusal, called_again
from autocompress.core.candidate import LayerPolicy, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Choice
from autocompress.errors import RequestError
from autocompress.graph.factors import LayerShape, factors, part_kinds, why_not
from autocompress.graph.model_graph import Layer, ModelGraph

RANK = "rank:"
#: Forms that a space offers unless told otherwise: for layers with a kernel, for those without, and
#: for embeddings.
#: On a ResNet-20's 3x3 layers the others mostly need more multiplications for the same error. Every
#: form can be asked for by name, and in a policy.
WITH_KERNEL, WITHOUT, TABLE = ("spatial", "cp"), ("whitened",), ("svd",)
_BY_NAME = "offered where it is asked for by name: techniques=['low_rank:{}']"
_NO_RANK = "no rank in steps of {} needs {} of its {} or fewer"


class LowRank(Technique):
    """Form and rank of the factorisation per layer; None keeps the full weight.

    Factorisations are remembered for as long as weights, channels and inputs stay what they are:
    the same candidate twice costs one decomposition.

    Args:
        forms: names of :data:`autocompress.compression.low_rank.registry.FORMS` to offer wherever
            they fit; without any, few that usually do best.

    Raises:
        RequestError: an unknown form.
    """

    name = "low_rank"
    order = 20
    reference = "; ".join(form.reference for form in FORMS.values())

    @classmethod
    def of(cls, variants: Sequence[str]) -> LowRank:
        """With these forms, as in ``techniques=["low_rank:tucker", "low_rank:svd"]``."""
        return cls(variants)

    def __init__(self, forms: Sequence[str] = ()) -> None:
        for form in forms:
            if form not in FORMS:
                raise RequestError(f"unknown form {form!r} of low rank; use {', '.join(FORMS)}")
        self.forms = tuple(forms)
        self._memory: Memory[Split] = Memory()

    def choices(self, graph: ModelGraph, capabilities: Capabilities) -> Sequence[Choice]:
        """One gene per ungrouped layer for which some form and rank saves multiplications."""
        found: list[Choice] = []
        for layer in graph.layers.values():
            module = graph.submodule(layer.name)
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                offered = self._offered(layer)
                options = rank_options(layer, module, capabilities.rank_step, offered)
                if options:
                    found.append(Choice(RANK + layer.name, (None, *options)))
        return found

    def refusals(self, graph: ModelGraph, capabilities: Capabilities) -> list[Refusal]:
        """Layers without a gene, and for the others each form that the gene does not hold."""
        genes = {c.name.partition(":")[2]: c.options for c in self.choices(graph, capabilities)}
        tables = any(layer.kind == "embedding" for layer in graph.layers.values())
        asked = self.forms or (*WITH_KERNEL, *WITHOUT, *(TABLE if tables else ()))
        found = [
            Refusal(EVERY_LAYER, self.name, _BY_NAME.format(form), form)
            for form in FORMS
            if form not in asked and not self.forms
        ]
        for layer in graph.layers.values():
            options = [str(option) for option in genes.get(layer.name, ()) if option is not None]
            if not options:
                found.append(Refusal(layer.name, self.name, self.refusal(layer, capabilities)))
            held = {option.partition(":")[0] for option in options}
            if layer.groups > 1 or layer.calls > 1:
                continue  # whatever the form
            found += [
                Refusal(layer.name, self.name, self._form_refusal(layer, form, capabilities), form)
                for form in asked
                if form not in held
            ]
        return found

    def _form_refusal(self, layer: Layer, form: str, capabilities: Capabilities) -> str:
        """Why a layer that could take others has no option of this form."""
        shape = why_not(layer, form)
        if shape is not None:
            return shape
        if form in self._offered(layer):
            return _no_rank(layer, capabilities)
        return _BY_NAME.format(form)

    def refusal(self, layer: Layer, capabilities: Capabilities) -> str:
        """Groups, shared weights, or no rank that pays, or no form for it among those asked for."""
        if layer.groups > 1:
            kind = "depthwise" if layer.is_depthwise else "grouped"
            return f"{kind} convolution: its weight is many small matrices, not one"
        if layer.calls > 1:
            return called_again(layer)
        return f"{_no_rank(layer, capabilities)} ({', '.join(self._offered(layer))})"

    def settings(self, choice: Choice, value: Scalar | None) -> dict[str, Scalar | None]:
        """``factorization``, ``rank`` and ``input_rank``."""
        return rank_settings(value)

    def looks_at_inputs(self, layer: Layer) -> bool:
        """Where the whitened form is offered."""
        offered = self._offered(layer)
        multiplies = layer.groups == 1 and layer.kind != "embedding"
        return "whitened" in offered and multiplies and layer.calls == 1

    def _offered(self, layer: Layer) -> tuple[str, ...]:
        if layer.kind == "embedding":
            return self.forms or TABLE
        return self.forms or (WITH_KERNEL if prod(layer.kernel) > 1 else WITHOUT)

    def simulate(
        self, layer: Layer, policy: LayerPolicy, parts: Sequence[Part]
    ) -> Transform | None:
        """Splits the layer's only part; None when that would save no multiplications.

        Raises:
            RequestError: the layer cannot be factorised in the form that is asked for.
        """
        if policy.rank is None or len(parts) != 1:
            return None
        part = parts[0]
        whole = LayerShape(
            tuple(part.weight.shape), part.stride, part.padding, part.dilation, part.groups
        )
        shapes = factors(layer, whole, policy)
        if shapes is None:
            return None
        form = FORMS[policy.factorization]

        def fit() -> Split:
            # a decomposition in half precision would be that of its rounding errors
            with torch.no_grad(), torch.autocast(part.weight.device.type, enabled=False):
                return form.fit(part, shapes)

        key = None if part.state is None else (part.state, form.name, shapes)
        split = self._memory.get(key, fit)

        def factorise(parts: Sequence[Part]) -> list[Part]:
            return _written(parts[0], split, shapes)

        return factorise


def _no_rank(layer: Layer, capabilities: Capabilities) -> str:
    counted = "weights" if layer.kind == "embedding" else "multiplications"
    return _NO_RANK.format(capabilities.rank_step, f"{WORTHWHILE:.0%}", counted)


def _written(part: Part, split: Split, shapes: Sequence[LayerShape]) -> list[Part]:
    """The part as several in a row; the last has its bias."""
    kinds = part_kinds(part.kind, len(shapes))
    made = [
        Part(kind, weight, None, shape.stride, shape.padding, shape.dilation, shape.groups)
        for kind, weight, shape in zip(kinds, split(part.weight), shapes, strict=True)
    ]
    made[0] = replace(made[0], padding_idx=part.padding_idx)
    made[-1] = replace(made[-1], bias=part.bias)
    return made
