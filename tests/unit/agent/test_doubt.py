"""Validation examples that the model was trained on are noticed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.agent.stages.baseline import _doubt_validation


@pytest.mark.parametrize(
    ("row", "from_scratch", "said"),
    [
        pytest.param((0.87, 0.877, 0.93), False, True, id="trained on them"),
        pytest.param((0.87, 0.877, 0.88), False, False, id="chance"),
        pytest.param((0.87, 0.877, 0.84), False, False, id="worse"),
        pytest.param((0.87, 0.877, 0.93), True, False, id="held out by us"),
        pytest.param((0.87, None, 0.93), False, False, id="no interval"),
    ],
)
def test_doubt(row: tuple[Any, ...], from_scratch: bool, said: bool) -> None:
    heard: list[str] = []
    context: Any = SimpleNamespace(
        baselines={
            "baseline-fp32": dict(
                zip(("accuracy", "accuracy_high", "val_accuracy"), row, strict=True)
            )
        },
        from_scratch=from_scratch,
        decide=lambda stage, decision, sentence, **evidence: heard.append(sentence),
    )
    _doubt_validation(context)
    assert bool(heard) is said
    assert not said or "0.9300 on validation and 0.8700 on test examples" in heard[0]
