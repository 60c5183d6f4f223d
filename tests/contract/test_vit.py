"""The vision transformer's space keeps the contract that every space keeps."""

from __future__ import annotations

from typing import Any

import pytest

from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.search_spaces.vit import patch_size
from autocompress.testing.spaces import SpaceContract
from tests.unit import networks


class TestViT(SpaceContract):
    samples = 4

    @pytest.fixture
    def space(self) -> ElasticSpace:
        return networks.space("vit")


def test_heads_depths_and_feed_forward_widths_are_choices() -> None:
    space = networks.space("vit")
    options = {choice.name: choice.options for choice in space.choices}
    assert options["width:stages.0.0.attention.query"] == (192, 160, 128, 96, 64)
    assert options["width:stages.1.2.expand"][0] == 768
    assert options["depth:stages.0"] == options["depth:stages.1"] == (3, 2, 1, 0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 30, 45), (3, 64, 64)], ids=str)
def test_inputs_it_is_made_for(shape: tuple[int, int, int]) -> None:
    space = load_space(
        "vit", input_shape=shape, num_classes=7, techniques=make_techniques(["pruning"])
    )
    ops = space.graph.operations(Candidate())
    assert ops[0].shape == (1, *shape)
    assert ops[-1].shape == (1, 7)


@pytest.mark.parametrize(
    ("side", "patch"), [(8, 1), (16, 2), (28, 4), (32, 4), (48, 4), (64, 8), (96, 8), (224, 16)]
)
def test_patches_grow_with_the_image(side: int, patch: int) -> None:
    assert patch_size(side) == patch


@pytest.mark.parametrize("shape", [(64,), (3, 7, 32), (3, 32, 225), (3, 32, 32, 32)], ids=str)
def test_inputs_it_is_not_made_for(shape: Any) -> None:
    with pytest.raises(RequestError) as caught:
        load_space("vit", input_shape=shape, num_classes=7)
    assert str(shape) in str(caught.value)
