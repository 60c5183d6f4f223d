"""The built-in techniques keep the contract that every technique keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autocompress.compression.base import Technique
from autocompress.compression.clustering import Clustering
from autocompress.compression.distillation.technique import RecipeDistillation
from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.parts import Part
from autocompress.compression.pruning import Pruning
from autocompress.compression.quantization import Quantization
from autocompress.compression.registry import available_techniques
from autocompress.compression.sparsity import Sparsity
from autocompress.compression.stored.registry import weight_form
from autocompress.core.candidate import LayerPolicy
from autocompress.testing.techniques import TechniqueContract


class TestPruning(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Pruning()


class TestLowRank(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return LowRank()


class TestEveryFormOfLowRank(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return LowRank(tuple(FORMS))


class TestSparsity(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Sparsity()


class TestSparsityInPatterns(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return Sparsity(["2:4", "block:1x4", "block:4x1"])


class TestQuantization(TechniqueContract):
    """Its realised parts keep float weights; the simulated graph rounds them later."""

    @pytest.fixture
    def technique(self) -> Technique:
        return Quantization()

    def deployed(self, policy: LayerPolicy, parts: Sequence[Part]) -> Sequence[Part]:
        return [_stored(part, policy) for part in parts]


class TestClustering(TechniqueContract):
    """As with quantisation, the simulated graph finds the shared values."""

    @pytest.fixture
    def technique(self) -> Technique:
        return Clustering()

    def deployed(self, policy: LayerPolicy, parts: Sequence[Part]) -> Sequence[Part]:
        return [_stored(part, policy) for part in parts]


class TestRecipeDistillation(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Technique:
        return RecipeDistillation()


def _stored(part: Part, policy: LayerPolicy) -> Part:
    form = weight_form(part.weight, policy.weight_bits, codebook=policy.codebook)
    return part.with_weight(form.rounded(part.weight, None))


def test_every_built_in_technique_is_tested_here() -> None:
    built_in = {t for t in available_techniques().values() if t.__module__.startswith("autoc")}
    assert built_in == {
        Pruning, LowRank, Sparsity, Quantization, Clustering, RecipeDistillation,
    }  # fmt: skip
