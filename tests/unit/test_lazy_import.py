from __future__ import annotations

import subprocess
import sys

import pytest

import autocompress

HEAVY = ("torch", "torchvision", "ray", "onnxruntime", "onnx", "optuna", "pandas", "sklearn")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light() -> None:
    code = (
        "import sys, autocompress; dir(autocompress); "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_plain_values_need_no_framework() -> None:
    code = (
        "import sys, autocompress as ac; ac.Budget.parse('10m'); ac.LayerPolicy(); ac.Candidate(); "
        "ac.Objective.parse('accuracy'); ac.Constraint('macs', 1); ac.Recipe(); "
        "print([m for m in ('torch', 'ray', 'onnxruntime', 'optuna') if m in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("name", [n for n in autocompress.__all__ if n != "__version__"])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(autocompress, name)
    assert callable(value)
    assert value.__doc__
    assert name in dir(autocompress)


def test_search_stays_the_function_whatever_is_imported_first() -> None:
    code = (
        "import autocompress.search, autocompress as ac, types; "
        "assert not isinstance(ac.search, types.ModuleType); "
        "import autocompress.search.store; "
        "assert callable(ac.search); "
        "from autocompress.search import store; print(store.__name__)"
    )
    assert run(code) == "autocompress.search.store"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = autocompress.serach


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert autocompress.__version__ == version("autocompress")
