"""Spaces by name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from autocompress.elastic import registry
from autocompress.elastic.registry import example_input, list_spaces, load_space
from autocompress.errors import RequestError


def test_built_in_spaces_are_listed_with_a_description() -> None:
    found = list_spaces()
    assert found["tiny_cnn"].startswith("A small convolutional network")
    assert all("\n" not in line and line for line in found.values())


def test_an_unknown_name_shows_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"unknown search space 'huge_cnn'.*tiny_cnn"):
        load_space("huge_cnn", input_shape=(3, 32, 32), num_classes=10)


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's space, found by its entry point."""
    module = ModuleType("somebodys_space")
    module.__doc__ = "Somebody's perceptron.\n\nMore about it."

    def largest(*, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(input_shape[0], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, num_classes),
        )  # fmt: skip

    module.largest = largest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_space", module)
    entry = EntryPoint("perceptron", "somebodys_space", registry.ENTRY_POINTS)

    def found(*, group: str) -> list[Any]:
        return [entry] if group == registry.ENTRY_POINTS else []

    monkeypatch.setattr(registry, "entry_points", found)


@pytest.mark.usefixtures("plugged_in")
def test_spaces_of_other_packages() -> None:
    assert list_spaces()["perceptron"] == "Somebody's perceptron."
    space = load_space("perceptron", input_shape=(12,), num_classes=3)
    assert space.name == "perceptron"
    assert {c.name for c in space.choices} >= {"width:0", "width:2", "rank:2", "precision:4"}


@pytest.mark.usefixtures("plugged_in")
def test_the_seed_decides_the_weights_and_nothing_else() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()

    def weights(seed: int) -> torch.Tensor:
        space = load_space("perceptron", input_shape=(4,), num_classes=2, seed=seed)
        weight = space.graph.submodule("0").weight
        assert isinstance(weight, torch.Tensor)
        return weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("length", "padding"), [(1, 0), (3, 0), (4, 1), (10, 2)])
def test_examples_of_token_ids_are_padded_by_a_quarter_at_most(length: int, padding: int) -> None:
    ids = example_input((length,), 8)
    assert ids.shape == (1, length)
    assert int((ids == 0).sum()) == padding
    assert int(ids.max()) < 8
