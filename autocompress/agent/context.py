"""What the stages share while a run is going on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import fx

from autocompress.agent.decisions import DecisionLog
from autocompress.agent.planner import Plan
from autocompress.agent.prices import Prices
from autocompress.agent.request import ORIGIN, Request
from autocompress.agent.run_folder import RunFolder
from autocompress.core.candidate import Candidate
from autocompress.core.events import Event, EventKind, Observer
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.evaluator import CandidateEvaluator
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile


class Interrupts:
    """Counts Ctrl-C: the first asks for an orderly end, the second raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def watching(self) -> Iterator[Interrupts]:
        """Watch while the block runs; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)


@dataclass
class Context:
    """A run in progress; each stage reads what earlier ones left and adds its own.

    Attributes:
        request: what was asked.
        folder: where everything is written.
        log: the decision log.
        observers: told of every event.
        started: ``time.monotonic()`` when this process began the run.
        spent_before: seconds that earlier processes spent on the run.
        space: the search space.
        elastic: the shared weights.
        teacher: the original model, for distillation.
        profile: the device.
        predictor: prices operations.
        pricer: prices genomes.
        evaluator: evaluates candidates.
        plan: how the budget is spread.
        baselines: rows of the baselines, by id.
        sensitivity: gene name to option index to accuracy lost.
        seeds: genomes to begin the search with, by where they come from.
        front: the search's front.
        finalists: candidates that were finalised, by name.
        interrupts: whether the user asked to stop.
    """

    request: Request
    folder: RunFolder
    log: DecisionLog
    observers: Sequence[Observer] = ()
    started: float = field(default_factory=time.monotonic)
    spent_before: float = 0.0
    space: ElasticSpace = None  # type: ignore[assignment]
    elastic: ElasticModel = None  # type: ignore[assignment]
    teacher: fx.GraphModule = None  # type: ignore[assignment]
    profile: HardwareProfile = None  # type: ignore[assignment]
    predictor: LatencyPredictor = None  # type: ignore[assignment]
    pricer: Prices = None  # type: ignore[assignment]
    evaluator: CandidateEvaluator = None  # type: ignore[assignment]
    plan: Plan = None  # type: ignore[assignment]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    sensitivity: dict[str, dict[int, float]] = field(default_factory=dict)
    seeds: list[tuple[str, Genome]] = field(default_factory=list)
    front: list[TrialRecord] = field(default_factory=list)
    finalists: dict[str, Candidate] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)

    @property
    def elapsed(self) -> float:
        """Seconds spent on the run, earlier processes included."""
        return self.spent_before + time.monotonic() - self.started

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return self.interrupts.asked

    @property
    def from_scratch(self) -> bool:
        """Whether the weights are not trained yet, as those of a named space."""
        return not self.space.trained

    @property
    def origin(self) -> Path | None:
        """The folder of the run that this one starts from; None for a search."""
        path = self.request.options.get(ORIGIN)
        return None if path is None else Path(path)

    @property
    def wants_packed(self) -> bool:
        """Whether the size of the entropy-coded file is searched for or bounded."""
        asked = [o.metric for o in self.request.objectives]
        return "packed_bytes" in [*asked, *(c.metric for c in self.request.constraints)]

    def remaining(self, reserve: float = 0.0) -> float:
        """Seconds left of the budget, less ``reserve``; infinite without a limit in seconds."""
        if self.request.budget.seconds is None:
            return float("inf")
        return self.request.budget.seconds - self.elapsed - reserve

    def deadline(self, seconds: float | None, reserve: float = 0.0) -> float | None:
        """``time.monotonic()`` value ``seconds`` from now, within the budget; None without one."""
        left = self.remaining(reserve)
        limit = min(left, float("inf") if seconds is None else seconds)
        return None if limit == float("inf") else time.monotonic() + max(0.0, limit)

    def tell(
        self, stage: str, kind: EventKind, message: str, data: Mapping[str, Any] | None = None
    ) -> None:
        """Tell every observer."""
        event = Event(stage, kind, message, data or {})
        for observer in self.observers:
            observer(event)

    def decide(self, stage: str, decision: str, sentence: str, **evidence: Any) -> None:
        """Write a decision down and tell it."""
        self.log.add(stage, decision, sentence, evidence)
        self.tell(stage, "decision", sentence)

    def progress(self, stage: str, unit: str) -> Callable[[int, int], None]:
        """A function of (done, total) that reports progress of a stage."""

        def report(done: int, total: int) -> None:
            self.tell(
                stage, "progress", f"{done} of {total} {unit}", {"done": done, "total": total}
            )

        return report
