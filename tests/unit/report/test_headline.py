from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autocompress.report.headline import headline
from autocompress.report.run_folder import read_run

MakeRun = Callable[..., Path]


def test_the_best_model_within_the_drop(make_run: MakeRun) -> None:
    found = headline(read_run(make_run()))
    assert found.best == "3c4d5e6f7a8b"
    assert found.sentence == "3.4x faster and 9.1x smaller than fp32 at −0.6 points on Fixture CPU."
    assert "at most 1 point" in found.rule


def test_without_a_model_within_the_drop_the_smallest_loss(make_run: MakeRun) -> None:
    view = read_run(make_run())
    found = headline(replace(view, pareto=view.pareto[3:].reset_index(drop=True)))
    assert found.best == "123456789012"
    assert "no model loses at most" in found.rule


def test_a_slower_model_is_called_slower(make_run: MakeRun) -> None:
    view = read_run(make_run())
    front = view.pareto[:1].copy()
    front["speedup"], front["accuracy_drop"] = 0.5, 0.0
    assert headline(replace(view, pareto=front)).sentence == (
        "2.0x slower and 3.3x smaller than fp32 at equal accuracy on Fixture CPU."
    )


def test_without_latency_nothing_is_claimed_about_it(make_run: MakeRun) -> None:
    view = read_run(make_run())
    front = view.pareto[:1].copy()
    front["speedup"] = float("nan")
    assert headline(replace(view, pareto=front)).sentence.startswith("3.3x smaller than fp32")


def test_no_model(make_run: MakeRun) -> None:
    view = read_run(make_run(status="interrupted"))
    empty = replace(view, pareto=view.pareto[:0], rejected={})
    assert headline(empty).sentence == "No verified model: the run is interrupted."
    assert headline(empty).best is None


def test_a_regression_names_its_metric(make_run: MakeRun) -> None:
    view = read_run(make_run())
    request = {"metric": "mean_absolute_error", "higher_is_better": False, "device": "pi"}
    front = view.pareto[:1].copy()
    front["accuracy"], front["accuracy_drop"] = 0.86, 0.006
    found = headline(replace(view, pareto=front, run={"request": request}))
    assert found.sentence == (
        "2.0x faster and 3.3x smaller than fp32 at a mean absolute error of 0.860 "
        "(fp32: 0.854) on pi."
    )
    assert found.rule.endswith("models that lose at most 0.00854")
