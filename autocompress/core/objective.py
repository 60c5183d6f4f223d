"""Metrics: which there are, their units, which way is better, and bounds on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from autocompress.errors import RequestError

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A quantity a candidate has.

    Attributes:
        name: its column name; the unit is part of it.
        direction: which way is better.
        priced: whether table and arithmetic give it without evaluating the candidate.
        description: one line for a person.
    """

    name: str
    direction: Direction
    priced: bool
    description: str


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("accuracy", "maximize", False, "the task's metric on held-out data (top-1 share)"),
        Metric("latency_ms", "minimize", True, "batch-1 latency on the device, milliseconds"),
        Metric("size_bytes", "minimize", True, "bytes of the ONNX file"),
        Metric("packed_bytes", "minimize", True, "bytes of the entropy-coded file"),
        Metric("peak_memory_bytes", "minimize", True, "largest sum of live activations, bytes"),
        Metric("energy_mj", "minimize", True, "energy of one inference, millijoules"),
        Metric("macs", "minimize", True, "multiply-accumulates of one inference"),
        Metric("parameters", "minimize", True, "stored weights and biases"),
    )
}

#: May be constrained: what is lost against the baseline, as a share (0.01 is one point).
ACCURACY_DROP = "accuracy_drop"


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and its direction."""

    metric: str
    direction: Direction

    @classmethod
    def parse(cls, value: Objective | str) -> Objective:
        """An objective from its metric's name.

        Raises:
            RequestError: no such metric.
        """
        if isinstance(value, Objective):
            return value
        if value not in METRICS:
            raise RequestError(
                f"unknown objective {value!r}; use one of {', '.join(sorted(METRICS))}"
            )
        return cls(value, METRICS[value].direction)

    def loss(self, value: float) -> float:
        """``value`` turned so that smaller is better."""
        return -value if self.direction == "maximize" else value


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric: an upper one, or a lower one when larger is better."""

    metric: str
    bound: float

    def __post_init__(self) -> None:
        if self.metric not in METRICS and self.metric != ACCURACY_DROP:
            known = ", ".join(sorted([*METRICS, ACCURACY_DROP]))
            raise RequestError(f"unknown constraint {self.metric!r}; use one of {known}")
        number = isinstance(self.bound, int | float) and not isinstance(self.bound, bool)
        if not number or not math.isfinite(self.bound):
            raise RequestError(f"constraint {self.metric} is {self.bound!r}; give a finite number")

    @property
    def priced(self) -> bool:
        """Whether it can be checked before anything is evaluated."""
        return self.metric in METRICS and METRICS[self.metric].priced

    def violation(self, value: float) -> float:
        """How far ``value`` is beyond the bound, relative to it; 0 when it is met."""
        lower = self.metric in METRICS and METRICS[self.metric].direction == "maximize"
        excess = self.bound - value if lower else value - self.bound
        if math.isnan(excess):
            return math.inf
        return max(0.0, excess) / (abs(self.bound) or 1.0)


def parse_objectives(values: Iterable[Objective | str]) -> tuple[Objective, ...]:
    """Two to four objectives, without repeats.

    Raises:
        RequestError: unknown, repeated, too few or too many.
    """
    if isinstance(values, str):
        raise RequestError(f"objectives is {values!r}; give two to four names, such as a list")
    objectives = tuple(Objective.parse(v) for v in values)
    names = [o.metric for o in objectives]
    if len(set(names)) != len(names):
        raise RequestError(f"objectives repeat a metric: {names}")
    if not 2 <= len(objectives) <= 4:
        raise RequestError(f"{len(objectives)} objectives given ({names}); use two to four")
    return objectives


def parse_constraints(values: Mapping[str, float] | None) -> tuple[Constraint, ...]:
    """Constraints from ``{"latency_ms": 2.0}``.

    Raises:
        RequestError: no mapping, an unknown metric, or a bound that is no number.
    """
    if values is not None and not isinstance(values, Mapping):
        raise RequestError(f"constraints are {values!r}; give a dict such as {{'latency_ms': 2.0}}")
    return tuple(Constraint(name, bound) for name, bound in (values or {}).items())
