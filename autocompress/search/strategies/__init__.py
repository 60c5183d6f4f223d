"""Strategies: what to try next. One file each; :func:`make_strategy` looks them up by name."""

from autocompress.search.strategies.base import Outcome, SearchStrategy
from autocompress.search.strategies.registry import make_strategy, strategy_names

__all__ = ["Outcome", "SearchStrategy", "make_strategy", "strategy_names"]
