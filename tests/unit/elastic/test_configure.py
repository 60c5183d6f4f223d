"""Configuring touches no weights: the same tensors before and after, and views while it runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autocompress.elastic import model
from autocompress.elastic.layers import ElasticNorm, Slice
from autocompress.elastic.model import ElasticModel
from tests.unit.named_spaces import small_space

NAMES = ("vit", "text_encoder")


def _held(elastic: ElasticModel) -> dict[str, tuple[int, int, int]]:
    """Of each parameter and buffer: where it lies, its storage's size, and its version."""
    tensors = {**dict(elastic.named_parameters()), **dict(elastic.named_buffers())}
    return {
        name: (t.data_ptr(), t.untyped_storage().nbytes(), t._version)
        for name, t in tensors.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_candidate_moves_changes_or_adds_a_parameter(name: str) -> None:
    found = small_space(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    before = _held(elastic)
    rng = np.random.default_rng(0)
    for _ in range(3):
        elastic.configure(found.decode(found.sample(rng)))
        assert _held(elastic) == before


@pytest.mark.parametrize("name", NAMES)
def test_narrow_layers_are_views_of_the_shared_weights(name: str) -> None:
    """Whatever the width of its inputs and outputs, heads included."""
    found = small_space(name)
    elastic = ElasticModel(found.graph).eval()
    genome = found.original
    for place, choice in enumerate(found.choices):
        if choice.name.startswith("width:"):
            genome[place] = len(choice.options) - 1
    elastic.configure(found.decode(genome))
    narrowed = 0
    for layer in elastic.layers.values():
        (part,) = layer.parts()
        narrowed += part.weight.shape != layer.weight.shape
        assert part.weight.untyped_storage().data_ptr() == layer.weight.data_ptr()
        if part.bias is not None and layer.bias is not None:
            assert part.bias.untyped_storage().data_ptr() == layer.bias.data_ptr()
    assert narrowed >= 6 * len(found.graph.blocks)


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_is_looked_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O(layers): two slices a layer and one a norm, and no weight is touched."""
    found = small_space(name)
    elastic = ElasticModel(found.graph).eval()
    candidate = found.decode(found.sample(np.random.default_rng(1)))
    made: list[Slice] = []

    class Counted(Slice):
        def __init__(self, indices: torch.Tensor | None) -> None:
            super().__init__(indices)
            made.append(self)

        def __call__(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
            raise AssertionError("a weight was sliced")

    monkeypatch.setattr(model, "Slice", Counted)
    elastic.select(candidate)
    norms = sum(isinstance(module, ElasticNorm) for module in elastic.modules())
    assert len(made) == 2 * len(elastic.layers) + norms
    assert 0 < norms < len(elastic.layers) < len(found.choices)
