"""Folders that an earlier version left are read as they were meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autocompress.agent.result import SearchResult
from autocompress.agent.stages.sensitise import _losses
from tests.unit.report.run_folders import write_run


def test_losses_by_gene_and_option() -> None:
    stored = {"precision:fc": {"0": 0.0, "3": 0.25}, "depth:layer1": {}}
    assert _losses(json.loads(json.dumps(stored))) == {
        "precision:fc": {0: 0.0, 3: 0.25}, "depth:layer1": {},
    }  # fmt: skip
    rows = {"table": [{"gene": "precision:fc", "option": 3, "metric_drop": 0.25}]}
    assert _losses(rows) == {"precision:fc": {0: 0.0, 3: 0.25}}


@pytest.mark.parametrize("foreign", [{"fc": 1.0}, {"fc": {"w4": 0.1}}, [1]])
def test_what_holds_something_else_is_damaged(foreign: object) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        _losses(foreign)


def test_what_was_left_alone(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = SearchResult(tmp_path).skipped.to_dict("records")
    assert found == [
        {"layer": "norm", "technique": "any", "setting": "any",
         "reason": "batch norm is folded away"},
    ]  # fmt: skip
