"""``ac.sensitivity`` from outside: its arguments, its table, its errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.errors import CaptureError, DataError, RequestError


def net(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, classes),
    )  # fmt: skip


@cache
def found() -> ac.Sensitivity:
    return ac.sensitivity(
        net(), "digits", device="raspberry_pi_4", budget=ac.Budget(trials=12), examples=40,
        progress=False,
    )  # fmt: skip


def test_a_row_for_every_layer_and_setting() -> None:
    table = found().table
    assert set(table["layer"]) == {"0", "4", "7"}
    assert {"pruning", "sparsity", "quantization", "clustering"} <= set(table["technique"])
    assert {"w8a8", "sparsity 0.7", "codebook 16", "width 0.5"} <= set(table["setting"])
    assert not table.duplicated(["layer", "technique", "setting"]).any()
    assert int(table["measured"].sum()) == 12
    assert found().examples == 40


def test_savings_are_those_of_the_profile() -> None:
    table = found().table.set_index(["layer", "setting"])
    assert (table.xs("w8a8", level="setting")["size_bytes_saved"] > 0).all()
    assert (table.xs("sparsity 0.7", level="setting")["macs_saved"] == 0).all()
    assert (table.xs("width 0.5", level="setting")["macs_saved"] > 0).all()
    assert (table.xs("width 0.5", level="setting")["latency_ms_saved"] > 0).all()


def test_without_a_device_there_are_no_latencies() -> None:
    result = ac.sensitivity(
        net(), "digits", techniques=["quantization"], budget=ac.Budget(trials=1), examples=20,
        progress=False,
    )  # fmt: skip
    assert set(result.table["technique"]) == {"quantization"}
    assert "latency_ms_saved" not in result.table
    assert "size_bytes_saved" in result.table


def test_the_summary_names_scores_and_reasons() -> None:
    said = found().summary()
    assert "12 measured on 40 examples" in said
    assert "rank agreement of all techniques (12 rows" in said
    assert "pruning 1" in said
    assert set(found().skipped.columns) == {"layer", "technique", "setting", "reason"}


def test_json_has_it_all() -> None:
    values = found().to_json()
    assert len(values["table"]) == len(found().table)
    assert values["reference"].keys() <= {"kept", "reestimated"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 1}, "examples is 1; give a whole number of at least 2"),
        ({"seed": -1}, "seed is -1"),
        ({"budget": "soon"}, "budget is 'soon'"),
        ({"budget": ac.Budget(train_steps=5)}, "nothing is trained here"),
        ({"techniques": ["magic"]}, "unknown technique 'magic'"),
        ({"techniques": []}, "ask for more techniques"),
        ({"device": "toaster"}, "toaster"),
        ({"task": "classification"}, "task is 'classification'"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(RequestError, match=message):
        ac.sensitivity(model, "digits", progress=False, **options)


def test_a_space_has_no_weights_to_look_at() -> None:
    with pytest.raises(RequestError, match="the model is a str"):
        ac.sensitivity("tiny_cnn", "digits")  # type: ignore[arg-type]


def test_data_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="label 9"):
        ac.sensitivity(net(classes=5), "digits", progress=False)
    with pytest.raises(CaptureError):
        ac.sensitivity(nn.Sequential(nn.Linear(3, 10)), "digits", progress=False)


def test_whitened_ranks_are_weighed_by_the_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    options: dict[str, Any] = {
        "techniques": ["low_rank"], "budget": ac.Budget(trials=20), "examples": 40,
        "progress": False,
    }  # fmt: skip
    table = ac.sensitivity(model, "digits", **options).measured
    assert table["setting"].str.startswith("rank whitened:").any()
    kept = (64, 32, 16)
    data = ac.Data.load("digits")
    x, y = data.val.subset(40, seed=0).first(40)
    inputs = torch.cat([x for x, _ in data.calibration.batches(64)][:4]).flatten(1)
    for row in table[table["layer"] == "1"].to_dict("records"):
        rank = int(row["setting"].rpartition(":")[2])
        assert rank in kept
        smaller = _projected(model, inputs, rank)
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(smaller(x), y))
        assert row["loss"] == pytest.approx(loss, rel=1e-3)


def _projected(model: nn.Module, inputs: torch.Tensor, rank: int) -> nn.Module:
    """With the first layer's outputs projected on their main directions over ``inputs``."""
    from copy import deepcopy

    found = deepcopy(model)
    layer = found[1]  # type: ignore[index]
    with torch.no_grad():
        _, vectors = torch.linalg.eigh((inputs @ layer.weight.T).T @ (inputs @ layer.weight.T))
        basis = vectors[:, -rank:]
        layer.weight.copy_(basis @ basis.T @ layer.weight)
    return found


def test_recipes_of_training_are_no_settings() -> None:
    with pytest.raises(RequestError, match="ask for more techniques"):
        ac.sensitivity(net(), "digits", techniques=["distillation"], progress=False)
