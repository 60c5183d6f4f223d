"""Strategies by name: the built-in ones, and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from autocompress.core.objective import Objective
from autocompress.core.space import SearchSpace
from autocompress.errors import RequestError
from autocompress.search.strategies.base import SearchStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

#: Makes a strategy from space, objectives and seed; a subclass of ``SearchStrategy`` is one.
StrategyFactory: TypeAlias = Callable[[SearchSpace, Sequence[Objective], int], SearchStrategy]

#: Entry-point group in which other packages name their strategies.
GROUP = "autocompress.strategies"

#: What "auto" stands for. The seam for choosing by space and budget.
AUTO = "nsga2"

_BUILT_IN: Mapping[str, str] = {
    "random": "autocompress.search.strategies.random:RandomStrategy",
    "nsga2": "autocompress.search.strategies.nsga2:NSGA2Strategy",
    "tpe": "autocompress.search.strategies.tpe:TPEStrategy",
}


def strategy_names() -> list[str]:
    """All names :func:`make_strategy` knows, "auto" included."""
    return sorted({"auto", *_BUILT_IN, *_installed()})


def make_strategy(
    strategy: str | StrategyFactory | Any,
    space: SearchSpace,
    *,
    objectives: Sequence[Objective],
    seed: int,
) -> SearchStrategy:
    """A fresh strategy.

    Args:
        strategy: a name of :func:`strategy_names`, a factory or ``SearchStrategy`` subclass, or an
            Optuna sampler. A sampler is used as it is: to resume a search, give a new one made
            with the same seed.
        space: where proposals come from.
        objectives: what is optimised.
        seed: the source of randomness; an Optuna sampler keeps its own.

    Raises:
        RequestError: no such strategy, or it cannot be loaded or made.
    """
    if _is_sampler(strategy):
        from autocompress.search.strategies.optuna_driver import OptunaStrategy

        sampler, name = strategy, type(strategy).__name__
        return OptunaStrategy(space, objectives, seed, sampler=lambda _: sampler, name=name)
    factory = _factory(strategy) if isinstance(strategy, str) else strategy
    if not callable(factory):
        raise RequestError(
            f"strategy is {strategy!r}; give a name ({', '.join(strategy_names())}), "
            "a SearchStrategy subclass or an Optuna sampler"
        )
    try:
        made: object = factory(space, objectives, seed)
    except TypeError as error:
        raise RequestError(
            f"strategy {strategy!r} cannot be made from (space, objectives, seed): {error}"
        ) from error
    if not isinstance(made, SearchStrategy):
        raise RequestError(f"strategy {strategy!r} made a {type(made).__name__}, no SearchStrategy")
    made.name = made.name or type(made).__name__
    return made


def _is_sampler(value: object) -> TypeGuard[BaseSampler]:
    """Whether it is an Optuna sampler, without importing Optuna: only its user can have one."""
    samplers = sys.modules.get("optuna.samplers")
    return samplers is not None and isinstance(value, samplers.BaseSampler)


def _factory(name: str) -> StrategyFactory:
    name = AUTO if name == "auto" else name
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        factory: StrategyFactory = getattr(import_module(module), attribute)
        return factory
    point = _installed().get(name)
    if point is None:
        raise RequestError(f"unknown strategy {name!r}; use one of {', '.join(strategy_names())}")
    try:
        loaded: StrategyFactory = point.load()
    except Exception as error:
        raise RequestError(
            f"strategy {name!r} of {point.value} cannot be loaded: {error}; reinstall its package"
        ) from error
    return loaded


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
