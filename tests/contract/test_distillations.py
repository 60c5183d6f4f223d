"""The built-in kinds of distillation keep the contract that every kind keeps."""

from __future__ import annotations

import pytest

from autocompress.compression.distillation.attention import AttentionTransfer
from autocompress.compression.distillation.base import Distillation
from autocompress.compression.distillation.decoupled import Decoupled
from autocompress.compression.distillation.feature import FeatureRegression
from autocompress.compression.distillation.itself import SelfDistillation
from autocompress.compression.distillation.mutual import Mutual
from autocompress.compression.distillation.registry import available_distillations
from autocompress.compression.distillation.relation import Relation
from autocompress.compression.distillation.response import Response
from autocompress.core.candidate import DISTILLATIONS
from autocompress.testing.distillations import DistillationContract

KINDS = (
    Response, Decoupled, FeatureRegression, AttentionTransfer, Relation, Mutual, SelfDistillation,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
class TestBuiltIn(DistillationContract):
    """Each in turn."""


def test_every_built_in_kind_is_tested_here_and_can_be_named_in_a_recipe() -> None:
    built_in = {
        name: kind
        for name, kind in available_distillations().items()
        if issubclass(kind, Distillation) and kind.__module__.startswith("autocompress.")
    }
    assert tuple(built_in.values()) == KINDS
    assert (*built_in, "none") == DISTILLATIONS
