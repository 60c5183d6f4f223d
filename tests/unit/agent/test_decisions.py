"""The log of decisions: what it holds, also when it is damaged."""

from __future__ import annotations

from pathlib import Path

from autocompress.agent.decisions import DecisionLog
from autocompress.agent.run_folder import RunFolder


def test_what_was_decided_is_known_again(tmp_path: Path) -> None:
    log = DecisionLog(RunFolder(tmp_path))
    assert not log.holds("trust", "no comparison")
    log.add("trust", "no comparison", "Too few.", {})
    for again in (log, DecisionLog(RunFolder(tmp_path))):
        assert again.holds("trust", "no comparison")
        assert not again.holds("trust", "compare")
        assert not again.holds("search", "no comparison")


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    log = DecisionLog(RunFolder(tmp_path))
    log.add("trust", "one", "", {})
    with log.path.open("ab") as file:
        file.write(b"{\xff not json\n[1]\n")
    log.add("trust", "two", "", {})
    assert log.holds("trust", "one")
    assert log.holds("trust", "two")
    assert not log.holds("trust", "three")
