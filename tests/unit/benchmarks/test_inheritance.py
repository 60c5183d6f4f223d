from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import inheritance
from benchmarks._kept import ROOT, keep_json, kept_json, runs_of


def test_other_values_have_another_folder() -> None:
    names = {
        inheritance.FULL.name(0),
        inheritance.FULL.name(1),
        inheritance.QUICK.name(0),
        replace(inheritance.FULL, epochs=3.5).name(0),
        replace(inheritance.FULL, elastic_steps=5001).name(0),
    }
    assert len(names) == 5
    assert inheritance.FULL.name(0) == (
        "examples=all,largest_steps=7030,elastic_steps=5000,epochs=3,sampled=160,chosen=12,seed=0"
    )


def test_runs_do_not_depend_on_where_they_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs_of("inheritance") == ROOT / "runs" / "inheritance"
    assert (ROOT / "benchmarks" / "inheritance.py").is_file()


def test_a_part_that_was_cut_off_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alone-0.json"
    assert kept_json(path) is None

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            keep_json(path, {"accuracy": 0.5})
    assert list(tmp_path.iterdir()) == []
    keep_json(path, {"accuracy": 0.5})
    assert kept_json(path) == {"accuracy": 0.5}
