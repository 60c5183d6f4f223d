"""A process uses what it may, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autocompress.core.cores import usable_cores


@pytest.mark.parametrize(
    ("text", "most"),
    [("50000 100000\n", 1), ("150000 100000\n", 2), ("400000 100000\n", 4)],
    ids=["half", "one and a half", "four"],
)
def test_a_quota_limits(tmp_path: Path, text: str, most: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert 1 <= usable_cores(quota) <= most


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense", "1 0"])
def test_without_a_quota_the_affinity_decides(tmp_path: Path, text: str) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores(quota) == expected
    assert usable_cores(tmp_path / "none") == expected
