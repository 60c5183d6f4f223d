from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.report.course import course_of
from autocompress.report.run_folder import read_run

MakeRun = Callable[..., Path]


def test_the_course_only_rises_and_ends_at_one(make_run: MakeRun) -> None:
    course = course_of(read_run(make_run()))
    assert course is not None
    assert course.objectives == ("accuracy", "latency_ms", "size_bytes")
    assert course.shares[-1] == 1.0
    assert all(a <= b + 1e-12 for a, b in zip(course.shares, course.shares[1:], strict=False))
    assert course.trials[0] == 0
    assert course.half in course.trials


@pytest.mark.parametrize("rows", [0, 2], ids=["none", "too-few"])
def test_too_few_trials_have_no_course(make_run: MakeRun, rows: int) -> None:
    view = read_run(make_run())
    assert course_of(replace(view, trials=view.trials[:rows])) is None
