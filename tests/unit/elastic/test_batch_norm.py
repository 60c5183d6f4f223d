"""Re-estimated statistics equal those computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.errors import DataError
from tests.unit.networks import randomise


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )
    randomise(made)
    return made


def _batches(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [2 + torch.randn(n, 3, 6, 6, generator=generator) for n in sizes]


def _by_hand(batches: list[torch.Tensor], layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages over batches of each batch's mean and unbiased variance."""
    outputs = [layer(x) for x in batches]
    means = torch.stack([y.mean((0, 2, 3)) for y in outputs])
    variances = torch.stack([y.var((0, 2, 3)) for y in outputs])
    return means.mean(0), variances.mean(0)


def test_statistics_by_hand() -> None:
    model, batches = _model(), _batches(8, 8, 5)
    with torch.no_grad():
        mean, variance = _by_hand(batches, model[0])
        first = nn.Sequential(*list(model)[:4]).train()  # the second norm sees normalised inputs
        later_mean, later_variance = _by_hand(batches, first)
        model.eval()
        assert reestimate_batch_norm(model, batches)
    norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(norms[0].running_mean, mean, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norms[0].running_var, variance, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norms[1].running_mean, later_mean, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(norms[1].running_var, later_variance, atol=1e-5)  # type: ignore[arg-type]


def test_it_forgets_what_was_there_and_gives_the_same_twice() -> None:
    model, batches = _model(), _batches(8, 4)
    reestimate_batch_norm(model, batches)
    first = {n: t.clone() for n, t in model.state_dict().items()}
    randomise(model[1])
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.load_state_dict({k: first[f"1.{k}"] for k in ("weight", "bias")}, strict=False)
    reestimate_batch_norm(model, batches)
    assert all(torch.equal(first[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_momentum_are_restored(training: bool) -> None:
    model = _model().train(training)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = 0.3
    reestimate_batch_norm(model, _batches(4))
    assert all(m.training is training for m in model.modules())
    assert norm.momentum == 0.3


def test_mode_and_momentum_are_restored_after_an_error() -> None:
    model = _model().eval()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(model, [*_batches(4), torch.zeros(2, 9, 6, 6)])
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    assert not norm.training


def test_nothing_else_is_trained() -> None:
    model = nn.Sequential(_model(), nn.Dropout(0.9)).eval()
    before = {n: p.clone() for n, p in model.named_parameters()}
    reestimate_batch_norm(model, _batches(4))
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())


def test_a_model_without_batch_norm() -> None:
    assert not reestimate_batch_norm(nn.Linear(3, 2), [torch.zeros(1, 3)])


def test_a_single_example_joins_the_next_batch() -> None:
    features = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    rows = [torch.randn(1, 3) for _ in range(7)]
    reestimate_batch_norm(features, rows)
    found = features[1].running_mean
    with torch.no_grad():
        expected = features[0](torch.cat(rows[:6])).mean(0)  # the last one has no partner
    assert isinstance(found, torch.Tensor)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("batches", [[], [torch.zeros(1, 3)]], ids=["none", "one example"])
def test_too_few_examples_leave_the_model_as_it_was(batches: list[torch.Tensor]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    randomise(model)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(DataError, match="at least two examples"):
        reestimate_batch_norm(model, batches)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
