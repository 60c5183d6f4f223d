"""A cut or foreign table is no table."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.agent.wholeness import model_is_whole, table_is_whole

WHOLE = "id,name\na,first\nb,second\n"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (WHOLE, True),
        (WHOLE[:-1], False),
        (WHOLE[:-8], False),
        ("id,name\na,first\n", False),
        (WHOLE + "c,third\n", False),
        ("", False),
        ("\n", False),
        ("name,id\na,first\nb,second\n", False),
        ("id,name\na,first,more\nb,second\n", False),
        ("id,name\na," + 200_000 * "x" + "\nb,second\n", False),
    ],
)
def test_table(tmp_path: Path, text: str, whole: bool) -> None:
    path = tmp_path / "pareto.csv"
    path.write_text(text)
    assert table_is_whole(path, ["b", "a"]) is whole


def test_what_is_not_there(tmp_path: Path) -> None:
    assert not table_is_whole(tmp_path / "pareto.csv", [])
    assert not model_is_whole(tmp_path)
    (tmp_path / "pareto.csv").write_bytes(b"\xff\xfe")
    assert not table_is_whole(tmp_path / "pareto.csv", [])
