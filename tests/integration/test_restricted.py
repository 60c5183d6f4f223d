"""Searches of which parts are held, with few models, and what they return as modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import autocompress as ac
from autocompress.core.budget import Fidelity
from autocompress.core.held import hold
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.search.store import read_trials
from tests.integration.runs import SEED, SmallCNN


@pytest.fixture(scope="module")
def held_run(
    cnn: SmallCNN, fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> ac.SearchResult:
    """Channels alone, drawn at random."""
    return ac.search(
        cnn, "digits", device=fixed_profile, budget=ac.Budget(trials=5, train_steps=60, models=2),
        techniques=["pruning"], held=["architecture"], strategy="random", seed=SEED,
        progress="none", run_dir=tmp_path_factory.mktemp("runs") / "held",
    )  # fmt: skip


def test_what_is_held_is_the_originals_in_every_trial(held_run: ac.SearchResult) -> None:
    trials = read_trials(held_run.run_dir / "study.db")
    assert trials
    assert all(t.candidate.architecture == trials[0].candidate.architecture for t in trials)
    assert len({t.candidate.id for t in trials}) > 1
    text = (held_run.run_dir / "decisions.jsonl").read_text()
    assert "choices are not searched, as was asked (architecture)" in text


def test_random_search_begins_with_no_seeds(held_run: ac.SearchResult) -> None:
    searched = [
        t for t in read_trials(held_run.run_dir / "study.db") if t.fidelity != Fidelity.FINAL
    ]
    assert {t.origin for t in searched} == {"random"}


def test_no_more_models_than_asked_for(held_run: ac.SearchResult) -> None:
    trials = read_trials(held_run.run_dir / "study.db")
    assert sum(t.fidelity == Fidelity.FINAL for t in trials) == 2
    assert 1 <= len(held_run.solutions) <= 2


def test_a_run_is_opened_again_with_what_was_held(held_run: ac.SearchResult, cnn: SmallCNN) -> None:
    again = ac.resume(held_run.run_dir, cnn, progress="none")
    assert [s.id for s in again.solutions] == [s.id for s in held_run.solutions]


@pytest.mark.parametrize("run", ["held_run", "fixed_run"])
def test_a_module_is_what_its_file_computes(
    run: str, cnn: SmallCNN, request: pytest.FixtureRequest
) -> None:
    result: ac.SearchResult = request.getfixturevalue(run)
    inputs, _ = ac.Data.load("digits").test.first(64)
    opened = ac.SearchResult(result.run_dir)
    for solution in result.solutions:
        module = opened.module(solution.id, model=cnn)
        session = solution.session()
        answers = session.run({session.inputs[0].name: inputs.numpy()})[0]
        with torch.no_grad():
            expected = module(inputs).numpy()
        if any(p.weight_bits < 32 for p in solution.candidate.layers.values()):
            agreement = (answers.argmax(1) == expected.argmax(1)).mean()
            assert agreement >= 0.98
        else:
            np.testing.assert_allclose(answers, expected, rtol=1e-3, atol=1e-4)


def test_a_module_starts_another_search(
    held_run: ac.SearchResult, fixed_profile: Path, tmp_path: Path
) -> None:
    solution = held_run.solutions[0]
    again = ac.search(
        held_run.module(solution.id), "digits", device=fixed_profile, seed=SEED,
        budget=ac.Budget(trials=3, train_steps=20, models=2), techniques=["quantization"],
        held=["architecture"], progress="none", run_dir=tmp_path / "again",
    )  # fmt: skip
    (original,) = (r for r in again.baseline.to_dict("records") if r["id"] == "baseline-fp32")
    assert original["accuracy"] == pytest.approx(solution.metrics["accuracy"], abs=0.01)


def test_a_module_that_is_not_there(held_run: ac.SearchResult) -> None:
    with pytest.raises(RequestError, match="there is no model 'baseline-fp32'"):
        held_run.module("baseline-fp32")


def test_all_choices_held(cnn: SmallCNN, fixed_profile: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="every choice of 'SmallCNN' is held"):
        ac.search(
            cnn, "digits", device=fixed_profile, budget="1m", progress="none",
            held=["architecture", "compression"], run_dir=tmp_path / "run",
        )  # fmt: skip


def test_a_space_keeps_what_it_holds_when_it_is_specialised(cnn: SmallCNN) -> None:
    example = ac.Data.load("digits").example()[0]
    space = ElasticSpace.from_model(cnn, (example,), held=["width:*"])
    again = space.specialised(space.techniques, space.capabilities, ["architecture"])
    assert list(again.choices) == list(hold(space.choices, ["architecture"]))
    assert all(len(c.options) == 1 for c in again.choices if c.name.startswith("width:"))
