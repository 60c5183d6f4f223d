"""Trials and evaluations: failure is data."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, TrialRecord


def test_an_evaluation_is_ok_without_an_error() -> None:
    assert Evaluation(metrics={"accuracy": 0.5}).ok
    assert not Evaluation(error="the loss became nan").ok


def test_evaluations_do_not_share_their_defaults() -> None:
    first, second = Evaluation(), Evaluation()
    assert first.metrics is not second.metrics
    assert first.details is not second.details


def test_a_record_cannot_be_changed() -> None:
    record = TrialRecord(0, (0, 1), Candidate(), Fidelity.INHERITED, "complete", {"macs": 1.0})
    with pytest.raises(FrozenInstanceError):
        record.state = "failed"  # type: ignore[misc]
    assert (record.error, record.attempts, record.origin) == (None, 1, "")
