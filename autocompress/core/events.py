"""What a running search tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

EventKind = Literal[
    "stage_started", "stage_finished", "progress", "trial", "decision", "note", "finished"
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        stage: the stage it happened in, such as ``"baseline"`` or ``"search"``.
        kind: what it is.
        message: one sentence or phrase for a person.
        data: plain JSON values for a machine. Displays understand these keys, all optional:
            ``run_dir`` (the run folder; shown with the command that resumes it), ``plan`` (what
            ``plan.json`` holds), ``rows`` (rows as in ``pareto.csv``, such as the baselines),
            ``done`` and ``total`` (counts of the stage), ``seconds`` (what the stage took).
    """

    stage: str
    kind: EventKind
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "message": self.message,
            "data": dict(self.data),
        }


#: Called in the driver's thread for every event, in order; it must return quickly.
Observer: TypeAlias = Callable[[Event], None]
