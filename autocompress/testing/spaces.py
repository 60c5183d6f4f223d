# ruff: noqa: S101 - these are tests, shipped to whoever writes a search space
"""The contract of a named search space, as tests to inherit.

Example::

    @functools.cache
    def mine():
        return load_space("mine", input_shape=(3, 32, 32), num_classes=10)

    class TestMine(SpaceContract):
        @pytest.fixture
        def space(self):
            return mine()
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx

from autocompress.compression.quantization import simulate_weights
from autocompress.core.candidate import Candidate
from autocompress.core.space import Genome
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import node_shapes
from autocompress.testing.knobs import turn_knobs

_TOLERANCE = 1e-4


class SpaceContract:
    """Inherit it, name the class ``Test…``, give the fixture :meth:`space`; pytest does the rest.

    Attributes:
        samples: random candidates per test.
        exports: random candidates that are exported and run.
        knobs: choices of each kind ("depth", "width" …) that are turned one by one.
    """

    samples = 8
    exports = 2
    knobs = 3

    @pytest.fixture
    def space(self) -> ElasticSpace:
        """The space under test; capturing takes seconds, so give the same object every time."""
        raise NotImplementedError("give your class a fixture `space`")

    @pytest.fixture
    def genomes(self, space: ElasticSpace) -> list[Genome]:
        """The original and a few random genomes."""
        rng = np.random.default_rng(0)
        return [space.original, *(space.sample(rng) for _ in range(self.samples))]

    @pytest.fixture
    def elastic(self, space: ElasticSpace) -> ElasticModel:
        """The space's shared weights, as if something had been learned about smaller kernels.

        Batch norms have the statistics of the largest network: the captured graph runs all branches
        at once, and a network whose statistics are off may answer the same whatever it is asked.
        """
        model = ElasticModel(space.graph, space.techniques).eval()
        generator = torch.Generator().manual_seed(0)
        for layer in model.layers.values():
            for difference in layer.shrinking.values():
                torch.nn.init.normal_(difference, 0, 0.05, generator=generator)
        inputs = _inputs(space, 16)
        if len(inputs) == 1:
            reestimate_batch_norm(model.configure(space.decode(space.original)), inputs)
        return model

    def test_it_has_a_name_and_choices(self, space: ElasticSpace) -> None:
        """There is something to search for."""
        assert space.name
        names = [choice.name for choice in space.choices]
        assert len(set(names)) == len(names)
        assert space.log10_size > 0

    def test_its_architectures_are_counted(self, space: ElasticSpace) -> None:
        """More than one, and no more than there are genomes."""
        assert 1 < space.architectures <= space.count() <= 1.0001 * 10**space.log10_size

    def test_conditions_name_earlier_choices_and_their_options(self, space: ElasticSpace) -> None:
        """Otherwise a gene could never be active, or `active` could not tell."""
        seen: dict[str, tuple[object, ...]] = {}
        for choice in space.choices:
            if choice.condition is not None:
                assert set(choice.condition.values) <= set(seen[choice.condition.name])
            seen[choice.name] = choice.options

    def test_genomes_and_candidates_translate(
        self, space: ElasticSpace, genomes: list[Genome]
    ) -> None:
        """Encode inverts decode, and different genomes are different candidates."""
        hashes = set()
        for genome in genomes:
            candidate = space.decode(genome)
            assert np.array_equal(space.encode(candidate), genome)
            assert Candidate.from_json(candidate.to_json()) == candidate
            hashes.add(candidate.hash)
        assert len(hashes) == len({tuple(g.tolist()) for g in genomes})

    def test_inactive_genes_have_no_influence(self, space: ElasticSpace) -> None:
        """Decoding a raw genome and its canonical form give one candidate."""
        rng = np.random.default_rng(1)
        for _ in range(self.samples):
            genome = rng.integers(0, space.sizes)
            assert space.decode(genome) == space.decode(space.canonical(genome))

    def test_samples_are_reproducible(self, space: ElasticSpace) -> None:
        """The generator decides, and nothing else."""
        drawn = [space.sample(np.random.default_rng(3)).tolist() for _ in range(2)]
        assert drawn[0] == drawn[1]

    def test_strangers_are_refused(self, space: ElasticSpace) -> None:
        """A candidate of another space is no candidate of this one."""
        stranger = Candidate(architecture={"depth:of another space": 1})
        with pytest.raises(RequestError):
            space.encode(stranger)
        with pytest.raises(RequestError):
            space.build(stranger)

    def test_candidates_build_and_run(self, space: ElasticSpace, genomes: list[Genome]) -> None:
        """Every candidate gives outputs of one shape that depend on the input."""
        x = _inputs(space, 4)
        shape = _run(space.build(space.decode(space.original)), x).shape
        for genome in genomes:
            output = _run(space.build(space.decode(genome)), x)
            assert output.shape == shape
            assert bool(torch.isfinite(output).all())
            assert float((output - output[:1]).abs().max()) > 0

    def test_shared_weights_run_as_what_is_built(
        self, space: ElasticSpace, elastic: ElasticModel, genomes: list[Genome]
    ) -> None:
        """The elastic model and the realised one compute the same."""
        x = _inputs(space, 4)
        for genome in genomes:
            candidate = space.decode(genome)
            elastic.configure(candidate)
            ops = space.graph.operations(candidate)
            expected = _run(simulate_weights(realise(elastic, candidate), ops), x)
            with torch.no_grad():
                found = elastic(*x)
            assert float((expected - found).abs().max()) <= _TOLERANCE

    def test_every_knob_changes_the_output(
        self, space: ElasticSpace, elastic: ElasticModel
    ) -> None:
        """A choice that leaves the function as it was would be searched in vain."""
        places = _some_of_each_kind(space, self.knobs)
        idle = [
            t for t in turn_knobs(space, elastic, _inputs(space, 2), places) if not t.has_effect
        ]
        assert idle == []

    def test_operations_describe_what_is_built(
        self, space: ElasticSpace, elastic: ElasticModel, genomes: list[Genome]
    ) -> None:
        """Names, shapes and parameters that are priced are those that exist."""
        x = _inputs(space, 1)
        for genome in genomes:
            candidate = space.decode(genome)
            model = fold_batch_norm(realise(elastic, candidate))
            shapes = node_shapes(model, x)
            ops = space.graph.operations(candidate)
            for op in ops[:-1]:
                assert shapes[op.name] == op.shape
            assert sum(op.parameters for op in ops) <= sum(p.numel() for p in model.parameters())

    def test_candidates_export_and_run(
        self, space: ElasticSpace, elastic: ElasticModel, genomes: list[Genome], tmp_path: Path
    ) -> None:
        """The ONNX file computes what torch computes, for any batch size."""
        onnxruntime = pytest.importorskip("onnxruntime")
        for genome in genomes[: self.exports + 1]:
            candidate = _in_floats(space.decode(genome))
            model = fold_batch_norm(realise(elastic, candidate))
            path = tmp_path / f"{candidate.id}.onnx"
            export_onnx(model, space.graph.operations(candidate), space.graph.example_inputs, path)
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            names = [i.name for i in session.get_inputs()]
            for batch in (1, 3):
                x = _inputs(space, batch)
                feeds = {n: t.numpy() for n, t in zip(names, x, strict=True)}
                (found,) = session.run(None, feeds)
                assert np.abs(found - _run(model, x).numpy()).max() <= _TOLERANCE


def _some_of_each_kind(space: ElasticSpace, most: int) -> list[int]:
    """Places of random choices, at the most so many of each kind; those of the recipe left out."""
    kinds: dict[str, list[int]] = {}
    for i, choice in enumerate(space.choices):
        if choice.kind != "recipe" and len(choice.options) > 1:
            kinds.setdefault(choice.name.partition(":")[0], []).append(i)
    rng = np.random.default_rng(2)
    return [int(i) for places in kinds.values() for i in rng.permutation(places)[:most]]


def _inputs(space: ElasticSpace, batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(batch, *x.shape[1:], generator=generator)
        if x.is_floating_point()
        else _rows(x, batch, generator)
        for x in space.graph.example_inputs
    )


def _rows(x: torch.Tensor, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of the ids of ``x``, in another order each and filled up to different lengths."""
    rows = torch.zeros(batch, *x.shape[1:], dtype=x.dtype)
    ids = x[x > 0]
    for row in rows.flatten(1):
        length = int(torch.randint(1, row.numel() + 1, (), generator=generator))
        row[:length] = ids[torch.randint(len(ids), (length,), generator=generator)]
    return rows


def _run(model: torch.nn.Module | fx.GraphModule, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        output: torch.Tensor = model(*x)
    return output


def _in_floats(candidate: Candidate) -> Candidate:
    return candidate.with_layers(
        {
            name: replace(policy, weight_bits=32, activation_bits=32)
            for name, policy in candidate.layers.items()
        }
    )
