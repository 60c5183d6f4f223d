"""The built-in space `tiny_cnn` keeps the contract that every space keeps."""

from __future__ import annotations

from typing import Any

import pytest

from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.testing.spaces import SpaceContract
from tests.unit import networks


class TestTinyCNN(SpaceContract):
    samples = 6

    @pytest.fixture
    def space(self) -> ElasticSpace:
        return networks.space("tiny_cnn")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 24), (3, 64, 96)], ids=str)
def test_inputs_it_is_made_for(shape: tuple[int, int, int]) -> None:
    space = load_space(
        "tiny_cnn", input_shape=shape, num_classes=7, techniques=make_techniques(["pruning"])
    )
    ops = space.graph.operations(Candidate())
    assert ops[0].shape == (1, *shape)
    assert ops[-1].shape == (1, 7)


@pytest.mark.parametrize("shape", [(64,), (3, 7, 32), (3, 32, 4), (3, 4, 4, 4)], ids=str)
def test_inputs_it_is_not_made_for(shape: Any) -> None:
    with pytest.raises(RequestError) as caught:
        load_space("tiny_cnn", input_shape=shape, num_classes=7)
    assert str(shape) in str(caught.value)
