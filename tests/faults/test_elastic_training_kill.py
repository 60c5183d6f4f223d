"""Elastic training that is killed at random goes on as if it had not been."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.elastic.training import SAVED_EVERY
from autocompress.errors import StorageError
from tests.faults.elastic_training import train
from tests.integration.runs import ROOT

STEPS = 3 * SAVED_EVERY // 2 + 7


def _lines(checkpoint: Path, kill_after: int | None = None) -> list[list[str]]:
    """What a training process prints until it ends, or is killed after so many lines."""
    command = [
        sys.executable, "-m", "tests.faults.elastic_training", str(checkpoint), str(STEPS)
    ]  # fmt: skip
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.split())
            if kill_after is not None and len(lines) >= kill_after:
                process.kill()
                break
    return lines


def test_same_losses_and_weights_as_undisturbed(tmp_path: Path) -> None:
    whole = _lines(tmp_path / "whole.safetensors")
    assert [line[0] for line in whole] == [*map(str, range(1, STEPS + 1)), "weights"]
    expected = dict(whole)
    cut, generator = tmp_path / "cut.safetensors", random.Random(0)
    for _ in range(2):
        for number, loss in _lines(cut, generator.randrange(SAVED_EVERY // 2, SAVED_EVERY + 20)):
            assert loss == expected[number], number
    last = _lines(cut)
    assert int(last[0][0]) == SAVED_EVERY + 1  # what was done before the checkpoint is not redone
    assert dict(last) == {number: expected[number] for number, _ in last}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(StorageError, match="delete it and resume"):
        train(path, 1)
