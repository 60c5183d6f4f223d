"""The built-in space `resnet` keeps the contract that every space keeps."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.corners import smallest
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.search_spaces.resnet import largest
from autocompress.testing.spaces import SpaceContract
from tests.unit.networks import EVERYTHING, randomise


@functools.cache
def small() -> ElasticSpace:
    made = load_space(
        "resnet", input_shape=(3, 16, 16), num_classes=10,
        techniques=make_techniques(None), capabilities=EVERYTHING,
    )  # fmt: skip
    randomise(made.graph.module)
    return made


@functools.cache
def shape_of(size: int) -> ElasticSpace:
    return load_space(
        "resnet",
        input_shape=(3, size, size),
        num_classes=7,
        techniques=make_techniques(["pruning"]),
    )


class TestResNet(SpaceContract):
    samples = 4
    exports = 1
    knobs = 2

    @pytest.fixture
    def space(self) -> ElasticSpace:
        return small()


@pytest.mark.parametrize(
    ("size", "depths", "convolutions", "megamacs"),
    [
        (32, {"stages.0": 3, "stages.1": 2, "stages.2": 2}, 19 + 2, 41),
        (32, {}, 31 + 2, 69),
        (224, {"stages.0": 2, "stages.1": 1, "stages.2": 1, "stages.3": 1}, 17 + 3, 1814),
        (224, {}, 33 + 3, 3663),
    ],
    ids=["ResNet-20", "ResNet-32", "ResNet-18", "ResNet-34"],
)
def test_the_published_networks_are_inside(
    size: int, depths: dict[str, int], convolutions: int, megamacs: int
) -> None:
    """By their convolutions, and projections on top; and by their multiply-accumulates."""
    candidate = Candidate(architecture={f"depth:{stage}": n for stage, n in depths.items()})
    ops = shape_of(size).graph.operations(candidate)
    assert sum(op.kind == "conv" for op in ops) == convolutions
    assert sum(op.macs for op in ops) / 1e6 == pytest.approx(megamacs, rel=0.01)
    assert ops[-1].shape == (1, 7)


def test_the_smallest_is_a_fiftieth_of_the_largest() -> None:
    space = shape_of(32)
    full, least = space.decode(space.original), smallest(space)
    macs = [sum(op.macs for op in space.graph.operations(c)) for c in (full, least)]
    assert macs[1] < macs[0] / 50


def test_residual_and_inner_widths_are_apart() -> None:
    space = shape_of(32)
    inner = space.graph.groups["stages.1.2.body.0"]
    assert inner.producers == ("stages.1.2.body.0",)
    residual = space.graph.groups["stages.1.0.shortcut.0"]
    assert len(residual.producers) == 1 + 5
    narrow = Candidate(layers=dict.fromkeys(residual.producers, LayerPolicy(width=16)))
    shapes = {op.layer: op.shape for op in space.graph.operations(narrow) if op.layer}
    assert shapes["stages.1.2.body.0"] == (1, 32, 16, 16)
    assert shapes["stages.1.2.body.3"] == (1, 16, 16, 16)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 40), (4, 64, 96)], ids=str)
def test_inputs_it_is_made_for(shape: tuple[int, int, int]) -> None:
    space = load_space(
        "resnet", input_shape=shape, num_classes=3, techniques=make_techniques(["pruning"])
    )
    ops = space.graph.operations(smallest(space))
    assert ops[0].shape == (1, *shape)
    assert ops[-1].shape == (1, 3)


@pytest.mark.parametrize("shape", [(64,), (3, 7, 32), (3, 4, 4, 4)], ids=str)
def test_inputs_it_is_not_made_for(shape: Any) -> None:
    with pytest.raises(RequestError) as caught:
        load_space("resnet", input_shape=shape, num_classes=7)
    assert str(shape) in str(caught.value)


def test_wider_networks_from_its_module() -> None:
    model = largest(input_shape=(3, 32, 32), num_classes=10, width=2)
    assert model.get_submodule("classifier").in_features == 128
    with pytest.raises(RequestError, match="width is 0"):
        largest(input_shape=(3, 32, 32), num_classes=10, width=0)
