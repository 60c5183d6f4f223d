from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autocompress.cli.models import load_model
from autocompress.errors import RequestError

NET = """
from torch import nn
from my_blocks import width

def build():
    return nn.Linear(width, 2)

def number():
    return 3

def broken():
    raise ValueError("no weights today")

constant = 3
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_net", "my_blocks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_blocks.py").write_text("width = 4\n")
    path = tmp_path / "my_net.py"
    path.write_text(NET)
    return path


def test_a_function_and_its_neighbours(net: Path) -> None:
    model = load_model(f"{net}:build")
    assert isinstance(model, nn.Linear)
    assert model.in_features == 4


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights(net: Path, tmp_path: Path, suffix: str, nested: str | None) -> None:
    state = {"weight": torch.full((2, 4), 3.0), "bias": torch.zeros(2)}
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state if nested is None else {nested: state, "epoch": 3}, path)
    model = load_model(f"{net}:build", path)
    assert bool((model.get_parameter("weight") == 3.0).all())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param("model.pt", "write FILE.py:FUNCTION", id="pickle"),
        pytest.param("net.py", "write FILE.py:FUNCTION", id="no-function"),
        pytest.param("nowhere.py:build", "there is no file nowhere.py", id="no-file"),
        pytest.param("NET:missing", "has no function 'missing'", id="unknown"),
        pytest.param("NET:constant", "has no function 'constant'", id="no-callable"),
        pytest.param("NET:number", "returned a int", id="no-module"),
        pytest.param("NET:broken", "line 12: broken() raised ValueError: no weights", id="raises"),
    ],
)
def test_a_model_that_cannot_be_had(net: Path, spec: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_model(spec.replace("NET", str(net)))
    assert words in str(caught.value)


def test_a_file_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "bad_net.py"
    path.write_text("x = 1\ny = \n")
    with pytest.raises(RequestError, match="line 2: importing it raised SyntaxError"):
        load_model(f"{path}:build")
    assert "bad_net" not in sys.modules
    assert str(tmp_path) not in sys.path


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("evil-was-here"),))


def test_bad_weights(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    with pytest.raises(RequestError, match="there is no file"):
        load_model(f"{net}:build", path)
    path.write_bytes(b"nothing")
    with pytest.raises(RequestError, match="cannot be read"):
        load_model(f"{net}:build", path)
    torch.save({"weight": torch.zeros(3, 3)}, path)
    with pytest.raises(RequestError, match="do not fit the model"):
        load_model(f"{net}:build", path)
    torch.save(Evil(), path)
    with pytest.raises(RequestError, match="only tensors are loaded"):
        load_model(f"{net}:build", path)
    assert not Path("evil-was-here").exists()
    torch.save([1, 2], path)
    with pytest.raises(RequestError, match="hold a list"):
        load_model(f"{net}:build", path)
