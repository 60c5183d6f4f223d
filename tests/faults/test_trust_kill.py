"""kill -9 while inherited and trained accuracy are compared: resuming does what is missing."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.search.store import read_trials
from tests.integration.runs import Setup, content, events_until, front, status

COMPARED = 8


@pytest.mark.slow
def test_killed_in_the_comparison(cnn: Setup, tmp_path: Path) -> None:
    setup = replace(cnn, trials=4 * COMPARED, steps=200)
    calm = tmp_path / "calm"
    setup.search(calm)
    folder = tmp_path / "run"
    with setup.start(folder, slow=0.02) as driver:
        for _ in range(COMPARED + 2):  # within those that are trained
            events_until(driver, "trust", "progress")
        driver.send_signal(signal.SIGKILL)
        driver.communicate(timeout=60)
    assert driver.returncode == -signal.SIGKILL
    stored = read_trials(folder / "study.db")
    assert COMPARED + 2 <= len(stored) < 2 * COMPARED
    assert not (folder / "trust.json").exists()

    setup.search(folder)
    assert status(folder) == "complete"
    assert read_trials(folder / "study.db")[: len(stored)] == stored
    assert content(folder) == content(calm)
    assert front(folder) == front(calm)
    one, two = (json.loads((f / "trust.json").read_text()) for f in (folder, calm))
    assert [c["agreement"] for c in one["comparisons"]] == [
        c["agreement"] for c in two["comparisons"]
    ]
