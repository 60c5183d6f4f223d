"""Every technique alone and with every other, on every kind of layer: one value all the way.

What the elastic model computes is what the realised model computes is what the runtime computes
from the file, and the file has the bytes that were promised.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.compression.low_rank import LowRank
from autocompress.compression.low_rank.registry import FORMS
from autocompress.compression.registry import default_techniques, make_techniques
from autocompress.compression.simulation import simulate_quantization, simulate_weights
from autocompress.core.candidate import Candidate
from autocompress.core.capabilities import FP32, Capabilities, Precision
from autocompress.core.space import Genome
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.export.onnx_export import export_onnx
from autocompress.export.stepwise import steps_apart
from autocompress.export.verification import Expectations, verify_artifact
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.size import size_bytes
from autocompress.runtimes.registry import load_runtime

PRECISIONS = tuple(
    Precision(bits, activations) for activations in (8, 6, 4, 32) for bits in (8, 6, 5, 4, 3, 2, 1)
)
CAPABILITIES = Capabilities(
    precisions=(FP32, *PRECISIONS, Precision(16, 32)),
    channel_step=4,
    rank_step=4,
    stores_packed=True,
    sparsity_patterns=("2:4", "1:4", "block:1x4", "block:4x1"),
)
#: Gene of a technique and the option that is asked of every layer that has it.
SETTINGS: dict[str, tuple[str, object]] = {
    "pruning": ("width", -1),
    **{form: ("rank", form) for form in FORMS},
    "sparsity": ("sparsity", 0.7),
    "2:4": ("sparsity", "2:4"),
    "1:4": ("sparsity", "1:4"),
    "block:1x4": ("sparsity", "block:1x4@0.7"),
    "block:4x1": ("sparsity", "block:4x1@0.7"),
    "clustering": ("codebook", 16),
    **{p.name: ("precision", p.name) for p in PRECISIONS},
    "w16a32": ("precision", "w16a32"),
}
OTHERS = ("pruning", "sparsity", "clustering", "quantization")
ALONE = [(name,) for name in SETTINGS]
#: Precisions in pairs: one that computes in integers, one of few bits, one that only stores.
IN_PAIRS = (
    "pruning", "svd", "sparsity", "2:4", "block:4x1", "clustering", "w8a8", "w3a8", "w1a8", "w4a32",
    "w4a4",
)  # fmt: skip
PAIRS: list[tuple[str, ...]] = [
    pair for pair in combinations(IN_PAIRS, 2) if SETTINGS[pair[0]][0] != SETTINGS[pair[1]][0]
]
#: The other forms of low rank have more parts, some of them depthwise, or look at their inputs.
PAIRS += [
    pair
    for form in ("whitened", "tucker", "cp", "spatial")
    for pair in [(form, "pruning"), (form, "w8a8"), (form, "w4a32"), (form, "pruning", "w8a8")]
]
PAIRS += [("cp", "sparsity"), ("cp", "clustering"), ("tucker", "w1a8")]


class Everything(nn.Module):
    """Convolution, depthwise convolution, attention, linear layers; with batch norm and without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.point = nn.Conv2d(16, 32, 1)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.mix = nn.Linear(32, 32)
        self.hidden = nn.Linear(32, 48)
        self.out = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.point(torch.relu(self.depthwise_norm(self.depthwise(x)))))
        tokens = functional.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        query, key = self.query(tokens), self.key(tokens)
        scores = torch.softmax(query @ key.transpose(1, 2) / 32**0.5, dim=-1)
        tokens = self.mix(scores @ self.value(tokens))
        out: torch.Tensor = self.out(torch.relu(self.hidden(tokens.mean(1))))
        return out


INPUTS = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    torch.manual_seed(0)
    model = Everything()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.2, 3.0)
                module.bias.normal_()
        model.train()(INPUTS)  # statistics of its own
    techniques = [LowRank(tuple(FORMS)), *make_techniques(OTHERS)]
    return ElasticSpace.from_model(
        model.eval(), (INPUTS[:1],), capabilities=CAPABILITIES, techniques=techniques
    )


def genome_of(space: ElasticSpace, names: tuple[str, ...]) -> Genome:
    wanted = dict(SETTINGS[name] for name in names)
    genome = space.original
    for i, choice in enumerate(space.choices):
        value = wanted.get(choice.name.partition(":")[0])
        if value == -1:
            genome[i] = len(choice.options) - 1
        elif value in FORMS:
            of_form = [o for o in choice.options if str(o).startswith(f"{value}:")]
            genome[i] = choice.options.index(of_form[-1]) if of_form else 0
        elif value in choice.options:
            genome[i] = choice.options.index(value)
    return space.canonical(genome)


def candidate_of(space: ElasticSpace, names: tuple[str, ...]) -> Candidate:
    candidate = space.decode(genome_of(space, names))
    assert candidate != space.decode(space.original)
    return candidate


def test_every_technique_is_among_the_settings() -> None:
    assert {t.name for t in default_techniques()} == set(OTHERS) | {"low_rank"}
    assert set(FORMS) | {"pruning", "sparsity", "clustering", "w8a8"} <= set(SETTINGS)


@pytest.mark.parametrize("names", [*ALONE, *PAIRS], ids="+".join)
def test_one_value_all_the_way(space: ElasticSpace, names: tuple[str, ...], tmp_path: Path) -> None:
    candidate = candidate_of(space, names)
    elastic = ElasticModel(space.graph, space.techniques)
    if "whitened" in names:
        assert "stem" in observe_inputs(elastic, space.decode(space.original), [INPUTS])
    ops = space.graph.operations(candidate)
    model = realise(elastic, candidate)
    with torch.no_grad():
        simulated = elastic.configure(candidate).eval()(INPUTS)
        realised = simulate_weights(model, ops).eval()(INPUTS)
    reach = float(simulated.abs().max())
    assert float((simulated - realised).abs().max()) <= 1e-4 * max(1.0, reach)

    deployed = simulate_quantization(fold_batch_norm(model), ops, [INPUTS]).eval()
    with torch.no_grad():
        expected = deployed(INPUTS)
    if not any(op.is_integer_layer for op in ops):
        assert float((expected - realised).abs().max()) <= 1e-4 * max(1.0, reach)
    path = tmp_path / "model.onnx"
    exported = export_onnx(deployed, ops, (INPUTS[:1],), path)
    session = load_runtime().load(path, threads=1)
    found = session.run([INPUTS.numpy()])[0]
    agreement = float((found.argmax(1) == expected.numpy().argmax(1)).mean())
    assert agreement >= 0.995
    if any(op.is_integer_layer for op in ops):
        steps = steps_apart(exported, deployed, [INPUTS[:64]], load_runtime())
        assert max(s.largest for s in steps.values()) <= 1
    else:
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * max(1.0, reach)

    promised = size_bytes(ops, quantized_tensors(ops))
    assert abs(path.stat().st_size - promised) <= 0.02 * promised + 600
    checked = verify_artifact(
        path,
        reference=deployed,
        batches=[(INPUTS, INPUTS)],
        expectations=Expectations(sha256=exported.sha256, size_bytes=exported.size_bytes),
    )
    assert checked.ok, checked.failures
