"""What a whole search may spend, and how much effort goes into one trial."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from autocompress.errors import RequestError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?\s*[smhd]\s*)+")


def parse_seconds(text: str | int | float) -> float:
    """Seconds from a number or a text such as ``"90s"``, ``"10m"``, ``"1h30m"``.

    Raises:
        RequestError: the text is no duration, or not positive.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise RequestError(f"budget is {text!r}; give seconds or a text such as '10m' or '1h30m'")
    if isinstance(text, int | float):
        seconds = float(text)
    elif _WHOLE.fullmatch(text.strip().lower()):
        seconds = sum(float(n) * _UNITS[u] for n, u in _PART.findall(text.strip().lower()))
    else:
        try:
            seconds = float(text)
        except ValueError:
            raise RequestError(
                f"budget is {text!r}; give seconds or a text such as '10m' or '1h30m'"
            ) from None
    if not 0 < seconds < float("inf"):
        raise RequestError(f"budget is {text!r}; it must be positive and finite")
    return seconds


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of the whole search; the first one reached ends it.

    Attributes:
        seconds: wall-clock seconds, or None for no limit.
        trials: finished trials of the search, or None for no limit; candidates that are compared
            before it (stage "trust") and models trained in full after it are not counted.
        train_steps: optimiser steps over all stages, or None for no limit.
        models: models to train in full and verify, so that each gets a larger share of the time;
            None takes up to 16. No limit that ends a search.
    """

    seconds: float | None = None
    trials: int | None = None
    train_steps: int | None = None
    models: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.trials is None and self.train_steps is None:
            raise RequestError("the budget limits nothing; set seconds, trials or train_steps")
        for name in ("seconds", "trials", "train_steps", "models"):
            value = getattr(self, name)
            if value is None:
                continue
            kinds = (int, float) if name == "seconds" else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                what = "number" if name == "seconds" else "whole number"
                raise RequestError(
                    f"budget {name} is {value!r}; it must be a positive {what}, or None"
                )

    @classmethod
    def parse(cls, value: Budget | str | int | float) -> Budget:
        """A budget from a budget, seconds, or a duration text."""
        return value if isinstance(value, Budget) else cls(seconds=parse_seconds(value))


class Fidelity(StrEnum):
    """Effort spent on one trial, cheapest first."""

    TABLE = "table"
    INHERITED = "inherited"
    SHORT = "short"
    FINAL = "final"

    @property
    def trains(self) -> bool:
        """Whether candidates may be trained back at this fidelity."""
        return self in (Fidelity.SHORT, Fidelity.FINAL)
