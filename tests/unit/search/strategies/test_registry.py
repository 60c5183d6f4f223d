"""Strategies by name, by class, by entry point and as Optuna samplers."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import optuna
import pytest

from autocompress.core.objective import parse_objectives
from autocompress.errors import RequestError
from autocompress.search.strategies import SearchStrategy, make_strategy, registry, strategy_names
from autocompress.search.strategies.random import RandomStrategy
from autocompress.testing.problems import AdditiveProblem

OBJECTIVES = parse_objectives(["accuracy", "latency_ms"])


def make(strategy: Any) -> SearchStrategy:
    return make_strategy(strategy, AdditiveProblem(), objectives=OBJECTIVES, seed=0)


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        pytest.param("random", "random", id="random"),
        pytest.param("nsga2", "nsga2", id="nsga2"),
        pytest.param("tpe", "tpe", id="tpe"),
        pytest.param("auto", "nsga2", id="auto"),
        pytest.param(RandomStrategy, "random", id="class"),
        pytest.param(optuna.samplers.RandomSampler(seed=1), "RandomSampler", id="sampler"),
    ],
)
def test_found(strategy: Any, name: str) -> None:
    assert make(strategy).name == name


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        pytest.param("nsga", "unknown strategy 'nsga'; use one of auto, nsga2", id="name"),
        pytest.param(7, "strategy is 7", id="number"),
        pytest.param(dict, "cannot be made from", id="another-class"),
        pytest.param(lambda *_: 5, "made a int", id="another-product"),
    ],
)
def test_refused(strategy: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make(strategy)


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    home = "autocompress.search.strategies.random"
    points = [
        EntryPoint("mine", f"{home}:RandomStrategy", registry.GROUP),
        EntryPoint("broken", f"{home}:Nothing", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert {"auto", "mine", "random"} <= set(strategy_names())
    assert isinstance(make("mine"), RandomStrategy)
    with pytest.raises(RequestError, match=r"'broken' of .* cannot be loaded"):
        make("broken")


def test_a_sampler_that_cannot_says_so() -> None:
    strategy = make(optuna.samplers.GridSampler({"x": [1]}))
    with pytest.raises(RequestError, match="GridSampler failed to propose"):
        [strategy.ask(index) for index in range(3)]
