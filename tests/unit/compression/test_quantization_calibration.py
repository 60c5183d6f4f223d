from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from autocompress.compression.calibration import model_inputs, observe
from autocompress.errors import DataError, RequestError


class Net(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * 2


def _net() -> fx.GraphModule:
    return fx.symbolic_trace(Net())


def _node(module: fx.GraphModule, kind: str) -> str:
    return next(str(n.name) for n in module.graph.nodes if kind in n.name)


def test_minmax_holds_everything_over_all_batches() -> None:
    module = _net()
    names = [_node(module, "x"), _node(module, "relu")]
    batches = [torch.tensor([[-3.0, 1.0]]), torch.tensor([[2.0, 5.0]])]
    seen = observe(module, names, batches, method="minmax")
    assert (seen[names[0]].low, seen[names[0]].high) == (-3.0, 5.0)
    assert (seen[names[1]].low, seen[names[1]].high) == (0.0, 5.0)


def test_ranges_hold_zero() -> None:
    module = _net()
    name = _node(module, "x")
    for method in ("minmax", "percentile"):
        seen = observe(module, [name], [torch.full((4, 4), 3.0)], method=method)
        assert (seen[name].low, seen[name].high) == (0.0, 3.0)


def test_the_percentile_ignores_an_outlier_among_many_values() -> None:
    module = _net()
    name = _node(module, "x")
    values = torch.linspace(-1, 1, 200_000).reshape(100, -1)
    values[50, 3] = 1e4
    seen = observe(module, [name], [values[:50], values[50:]])
    assert seen[name].high == pytest.approx(1.0, abs=1e-3)
    assert seen[name].low == pytest.approx(-1.0, abs=1e-3)


def test_the_percentile_is_the_maximum_of_few_values() -> None:
    module = _net()
    name = _node(module, "x")
    seen = observe(module, [name], [torch.linspace(0, 7, 64).reshape(8, 8)])
    assert seen[name].high == pytest.approx(7.0, abs=1e-2)


def test_what_follows_the_inputs_is_ignored() -> None:
    module = _net()
    x, y = torch.ones(2, 3), torch.zeros(2)
    assert model_inputs(module, (x, y)) == (x,)
    assert model_inputs(module, x) == (x,)


def test_training_mode_is_kept() -> None:
    module = _net().train()
    observe(module, [], [torch.ones(1, 1)])
    assert module.training


BAD = {
    "no batches": ([], "minmax", DataError, "at least one"),
    "NaN": ([torch.tensor([[float("nan")]])], "minmax", DataError, "NaN or infinity"),
    "infinity": ([torch.tensor([[float("inf")]])], "percentile", DataError, "NaN or infinity"),
    "method": ([torch.ones(1, 1)], "best", RequestError, "percentile, minmax"),
    "too few inputs": ([[]], "minmax", DataError, "takes 1 inputs"),
}


@pytest.mark.parametrize(("batches", "method", "error", "message"), BAD.values(), ids=BAD)
def test_bad_requests(
    batches: list[torch.Tensor], method: str, error: type[Exception], message: str
) -> None:
    module = _net()
    with pytest.raises(error, match=message):
        observe(module, [_node(module, "x")], batches, method=method)
