"""The smallest network of every named space really is: no change of one gene makes it smaller."""

from __future__ import annotations

import numpy as np
import pytest

from autocompress.core.candidate import Candidate
from autocompress.core.space import Choice, Genome, SearchSpace
from autocompress.elastic.corners import smallest
from autocompress.elastic.registry import list_spaces
from autocompress.elastic.space import ElasticSpace
from tests.unit.named_spaces import small_space
from tests.unit.networks import space

#: Genes of these kinds change what is computed or held.
SHAPING = ("resolution", "depth", "branch", "kernel", "width", "rank")


def _cost(found: ElasticSpace, candidate: Candidate) -> float:
    def count(candidate: Candidate) -> tuple[int, int]:
        ops = found.graph.operations(candidate)
        return sum(op.macs for op in ops), sum(op.parameters for op in ops)

    macs, parameters = count(candidate)
    most = count(found.decode(found.original))
    return macs / most[0] + parameters / most[1]


@pytest.mark.parametrize("name", list_spaces())
def test_no_change_of_one_gene_makes_it_smaller(name: str) -> None:
    found = small_space(name)
    genome = found.encode(smallest(found))
    least = _cost(found, smallest(found))
    active = found.active(genome)
    shaping = [
        (place, choice)
        for place, choice in enumerate(found.choices)
        if active[place] and choice.name.partition(":")[0] in SHAPING
    ]
    for place, choice in shaping[:: 1 + len(shaping) // 30]:
        for option in range(len(choice.options)):
            changed = genome.copy()
            changed[place] = option
            assert _cost(found, found.decode(changed)) >= least, (choice.name, option)


@pytest.mark.parametrize("name", list_spaces())
def test_random_candidates_are_larger(name: str) -> None:
    found = small_space(name)
    least = _cost(found, smallest(found))
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert _cost(found, found.decode(found.sample(rng))) > least


def test_branches_that_cost_are_left_out() -> None:
    chosen = smallest(small_space("mobile_cnn")).architecture
    assert {v for n, v in chosen.items() if n.startswith("branch:")} == {"none"}
    chosen = smallest(small_space("tiny_cnn")).architecture
    assert {v for n, v in chosen.items() if n.startswith("branch:")} == {"separable"}


def test_a_rank_that_saves_nothing_in_a_narrow_layer_is_not_taken() -> None:
    """In a stem of a quarter of the channels, what saves most at full width saves nothing."""
    found = small_space("resnet")
    (options,) = (c.options for c in found.choices if c.name == "rank:stem.0")
    assert len(options) > 2
    assert smallest(found).policy("stem.0").factorization != str(options[-1]).partition(":")[0]


def test_a_table_that_multiplies_nothing_is_made_small_all_the_same() -> None:
    policy = smallest(small_space("text_encoder")).policy("tokens")
    assert policy.rank is not None


def test_of_a_model() -> None:
    found = smallest(space("resnet"))
    assert found.architecture == {"depth:layer1": 0, "depth:layer2": 0, "depth:layer3": 0}
    assert found.policy("layer2.0.conv1").width == 4
    assert found.policy("fc").sparsity == 0.85
    assert found.policy("fc").weight_bits == 32  # precisions are no scale
    original = space("resnet").decode(space("resnet").original)
    macs = [sum(op.macs for op in space("resnet").graph.operations(c)) for c in (found, original)]
    assert macs[0] < macs[1] / 4


class _Plain(SearchSpace):
    """A space without a network."""

    name = "plain"
    choices = (
        Choice("depth:a", (2, 1), "architecture"),
        Choice("branch:b", ("x", "y"), "architecture", ordered=False),
    )

    def decode(self, genome: Genome) -> Candidate:
        values = zip(self.choices, genome, strict=True)
        return Candidate(architecture={c.name: c.options[int(g)] or 0 for c, g in values})

    def encode(self, candidate: Candidate) -> Genome:
        return self.original

    def build(self, candidate: Candidate) -> None:
        return None


def test_a_space_without_figures_keeps_its_first_branches() -> None:
    assert smallest(_Plain()).architecture == {"depth:a": 1, "branch:b": "x"}
