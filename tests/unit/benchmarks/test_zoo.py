"""The zoo's rows: one whole model, and one that gets nowhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from benchmarks import _zoo_model, zoo


def test_its_short_list_names_models() -> None:
    assert set(zoo.QUICK) <= set(torchvision.models.list_models(module=torchvision.models))


def test_a_small_model_gets_all_the_way() -> None:
    row = _zoo_model.look_at("squeezenet1_1", seed=0)
    assert (row.captured, row.elastic, row.exported, row.verified) == (True,) * 4
    assert row.groups[0] > 20
    assert row.elastic_share == pytest.approx(1.0, abs=1e-3)
    assert max(row.elastic_diff, row.float_diff) <= 1e-4
    assert row.steps in (0, 1)
    assert row.reason == ""


def test_what_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, **settings: Any) -> nn.Module:
        raise ValueError("no such weights\nand more")

    monkeypatch.setattr(torchvision.models, "get_model", broken)
    row = _zoo_model.look_at("resnet18", seed=0)
    assert not row.captured
    assert row.reason == "ValueError: no such weights"


def test_nothing_constant_is_left() -> None:
    """Not a head of zeros, nor a norm that is the identity."""
    model = torchvision.models.vit_b_32(image_size=32, num_classes=4)
    images = torch.randn(2, 3, 32, 32)
    _zoo_model.disturbed(model, images, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        assert float(parameter.detach().std()) > 1e-6, name
