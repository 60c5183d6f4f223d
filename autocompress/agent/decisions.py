"""``decisions.jsonl``: what was decided, on what evidence, in a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.agent.provenance import now
from autocompress.agent.run_folder import RunFolder
from autocompress.core.files import writing
from autocompress.core.json_values import finite


class DecisionLog:
    """Appends decisions to a run's log.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / "decisions.jsonl"
        _drop_torn_line(self.path)

    def add(
        self, stage: str, decision: str, sentence: str, evidence: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Append one decision; returns it."""
        entry = {
            "time": now(), "stage": stage, "decision": decision, "sentence": sentence,
            "evidence": finite(dict(evidence)),
        }  # fmt: skip
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return entry

    def holds(self, stage: str, decision: str) -> bool:
        """Whether a stage has written such a decision, in this session or an earlier one.

        The log is evidence and no state: where it is damaged, a decision may only be said again.
        """
        if not self.path.is_file():
            return False
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return any(_is_of(line, stage, decision) for line in text.splitlines())


def _is_of(line: str, stage: str, decision: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and (entry.get("stage"), entry.get("decision")) == (
        stage,
        decision,
    )


def _drop_torn_line(path: Path) -> None:
    """A line that a crash cut short would make the next one unreadable."""
    if not path.is_file():
        return
    with writing(path):
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
