"""How an elastic training proceeds: its learning rate, how far candidates reach, when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Schedule:
    """Learning rate and reach of each step of so many, and an earlier end where nothing is gained.

    Both go by the share of the training that is over, in steps or in time, whichever is further.
    The rate rises linearly over the first hundredth of the steps and falls with the cosine to zero.
    The reach of candidates grows linearly from a quarter to the whole: the largest ones learn
    first, from which the others then inherit (progressive shrinking, Cai et al. 2020,
    arXiv:1908.09791, section 3.3). When :meth:`judge` is told no better score several times, the
    rest is cut to a twentieth of all steps, over which the rate still falls to zero: much of what
    a training gains is seen only then.

    Args:
        steps: planned.
        rate: the peak learning rate.
        growing: share of the training over which the reach grows; 0 begins with the whole.
        patience: scores without a better one before the end is brought forward.
    """

    #: Where the reach begins.
    LEAST_REACH = 0.25
    #: How much better a score has to be, as a share of what was gained so far: less is noise.
    GAIN = 0.02

    def __init__(self, steps: int, rate: float, *, growing: float, patience: int) -> None:
        self.steps, self.rate = steps, rate
        self._growing, self._patience = growing, patience
        self._first: float | None = None
        self._best, self._since = -math.inf, 0
        self._cut: int | None = None

    @property
    def end(self) -> int:
        """The step at which the training ends."""
        return self.steps if self._cut is None else self._cut + self._tail

    @property
    def is_cut(self) -> bool:
        """Whether the end was brought forward."""
        return self._cut is not None

    @property
    def _tail(self) -> int:
        return max(1, self.steps // 20)

    def share(self, done: int, spent: float = 0.0) -> float:
        """How much of the training is over after so many steps, and this share of its time."""
        return min(1.0, max(done / max(1, self.steps), spent))

    def learning_rate(self, done: int, spent: float = 0.0) -> float:
        """The rate of the next step."""
        rising = min(1.0, (done + 1) / max(1.0, self.steps / 100))
        rate = self.rate * rising * 0.5 * (1 + math.cos(math.pi * self.share(done, spent)))
        if self._cut is not None:
            rate *= max(0.0, 1 - (done - self._cut) / self._tail)
        return rate

    def reach(self, done: int, spent: float = 0.0) -> float:
        """How far from the largest candidate the others of the next step may be, in 0..1."""
        share = self.share(done, spent)
        if share >= self._growing:
            return 1.0
        return self.LEAST_REACH + (1 - self.LEAST_REACH) * share / self._growing

    def judge(self, score: float, done: int, spent: float = 0.0) -> None:
        """A score of the same candidates each time, in any unit, larger is better.

        Scores count from when the reach is whole, since until then the training is of other
        candidates; those that are not finite never do. The end is brought forward once at the most.
        """
        if self._cut is not None or self.reach(done, spent) < 1.0 or not math.isfinite(score):
            return
        if self._first is None:
            self._first = self._best = score
            return
        if score > self._best + self.GAIN * (self._best - self._first):
            self._best, self._since = score, 0
            return
        self._since += 1
        if self._since >= self._patience and done + self._tail < self.steps:
            self._cut = done

    def state(self) -> dict[str, Any]:
        """What decides how it goes on, as JSON."""
        best = None if self._first is None else self._best
        return {"first": self._first, "best": best, "since": self._since, "cut": self._cut}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._first = None if state["first"] is None else float(state["first"])
        self._best = -math.inf if state["best"] is None else float(state["best"])
        self._since = int(state["since"])
        self._cut = None if state["cut"] is None else int(state["cut"])
