"""Cheap scores of models whose layers see examples otherwise than along the first dimension."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.sensitivity.analysis import Limits, analyse
from autocompress.evaluation.sensitivity.perturbation import Perturbations
from autocompress.evaluation.sensitivity.scores import Scorer, by_example
from autocompress.evaluation.sensitivity.settings import Setting, single_settings
from autocompress.evaluation.task import Task
from tests.unit.evaluation.sensitivity.test_analysis import made, run, space_of
from tests.unit.networks import EVERYTHING

LAYOUTS = ("first", "folded", "second", "mixed")


class Rows(nn.Module):
    """One function of the rows of an image, which its middle layer is given in several layouts."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.first = nn.Linear(8, 16)
        self.middle = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x.squeeze(1)))
        if self.layout == "folded":  # as windows of a Swin transformer
            x = self.middle(x.reshape(-1, 16)).reshape(-1, 8, 16)
        elif self.layout == "second":  # as attention that has the sequence first
            x = self.middle(x.transpose(0, 1)).transpose(0, 1)
        elif self.layout == "mixed":  # rows of all examples, sorted by place
            x = self.middle(x.transpose(0, 1).reshape(-1, 16)).reshape(8, -1, 16).transpose(0, 1)
        else:
            x = self.middle(x)
        return self.head(torch.relu(x).mean(1))  # type: ignore[no-any-return]


def model(layout: str) -> nn.Module:
    torch.manual_seed(0)
    return Rows(layout).eval()


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_scores_are_the_same_in_every_layout_that_holds_examples_apart(layout: str) -> None:
    techniques = ["sparsity", "low_rank"]
    plain = run(made(model("first"), techniques), Limits(settings=2))
    found = run(made(model(layout), techniques), Limits(settings=2))
    columns = ["output_sqnr_db", "weight_error", "fisher_diagonal"]
    own = ["output_fisher", "taylor"]
    middle = found.table["layer"] == "middle"
    assert middle.any()
    close(found.table[columns], plain.table[columns])
    close(found.table.loc[~middle, own], plain.table.loc[~middle, own])
    if layout == "mixed":
        assert found.table.loc[middle, own].isna().all(axis=None)
        assert any("hold the examples apart" in note for note in found.notes)
    else:
        close(found.table[own], plain.table[own])
        assert not found.notes


def close(one: pd.DataFrame, other: pd.DataFrame) -> None:
    np.testing.assert_allclose(one.to_numpy(float), other.to_numpy(float), rtol=1e-3, atol=1e-9)


def test_an_error_while_scoring_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no kernel for this\nand a trace")

    monkeypatch.setattr(Scorer, "scores", broken)
    evaluator = made(model("first"), ["sparsity"])
    result = run(evaluator, Limits(settings=3))
    assert result.notes == ("no cheap scores: RuntimeError: no kernel for this",)
    assert result.score_examples == 0
    assert len(result.measured) == 3
    assert len(result.table) == len(single_settings(space_of(evaluator)))
    assert "0 failed" in result.summary()


def test_a_setting_that_cannot_be_scored_takes_no_scores_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Perturbations.weight_changes

    def broken(self: Perturbations, setting: Setting) -> dict[str, torch.Tensor]:
        if setting.target == "middle":
            raise RuntimeError("no such weight\nand a trace")
        return honest(self, setting)

    monkeypatch.setattr(Perturbations, "weight_changes", broken)
    result = run(made(model("first"), ["sparsity"]), Limits(settings=1))
    scored = ~result.table["weight_error"].isna()
    assert (scored == (result.table["layer"] != "middle")).all()
    (note,) = result.notes
    assert "settings have no cheap scores, such as" in note
    assert "of middle: RuntimeError: no such weight" in note


class Words(nn.Module):
    """An embedding of low rank: what its factors amount to is a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(40, 16), nn.Linear(16, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.table(ids)).mean(1))  # type: ignore[no-any-return]


def test_ranks_of_an_embedding_are_scored() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (64, 6), generator=generator)
    data = Data(train=(ids, ids[:, 0] % 2), val=(ids, ids[:, 0] % 2))
    torch.manual_seed(0)
    space = ElasticSpace.from_model(
        Words().eval(), (ids[:1],), techniques=make_techniques(["low_rank", "quantization"]),
        capabilities=EVERYTHING,
    )  # fmt: skip
    elastic = ElasticModel(space.graph, space.techniques).eval()
    evaluator = CandidateEvaluator(
        elastic, data, Task(), effort=Effort(val_limit=32), statistics=32,
        original=space.decode(space.original),
    )  # fmt: skip
    result = analyse(evaluator, space, evaluator.trial_split(), limits=Limits(settings=1), seed=0)
    ranks = result.table[result.table["gene"] == "rank:table"]
    assert len(ranks)
    columns = ["output_fisher", "fisher_diagonal", "output_sqnr_db", "weight_error"]
    assert np.isfinite(result.table[columns]).all(axis=None)
    assert not result.notes


def test_examples_are_along_the_dimension_that_grew() -> None:
    batch = torch.arange(24.0).reshape(2, 3, 4)
    assert by_example(batch, (2, 1, 4), 3) is not None
    assert torch.equal(by_example(batch, (2, 1, 4), 3)[1], batch[:, 1:2])  # type: ignore[index]
    assert torch.equal(by_example(batch, (1, 3, 4), 2)[1], batch[1:])  # type: ignore[index]
    assert torch.equal(by_example(batch, (2, 3, 2), 2)[1], batch[:, :, 2:])  # type: ignore[index]
    assert torch.equal(by_example(batch, (2, 3, 4), 1)[0], batch)  # type: ignore[index]
    for alone in ((1, 1, 4), (2, 3, 3), (2, 3), (2, 3, 4)):
        assert by_example(batch, alone, 2) is None
