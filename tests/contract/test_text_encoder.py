"""The space for texts keeps the contract that every space keeps, and takes rows of any length."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from autocompress.cli.devices import texts
from autocompress.compression.registry import make_techniques
from autocompress.compression.simulation import simulate_quantization, simulate_weights
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.evaluator import uniform
from autocompress.export.onnx_export import ExportedModel, export_onnx
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.hardware.lowerings.plain import PLAIN, lowering
from autocompress.hardware.onnx_operations import read_operations
from autocompress.hardware.roofline import work_of
from autocompress.hardware.size import size_bytes
from autocompress.measurement.kernels import KernelSignature, signatures
from autocompress.measurement.synthesis import synthesise
from autocompress.runtimes.registry import load_runtime
from autocompress.testing.spaces import SpaceContract
from tests.unit import networks

VOCABULARY, LENGTH = 300, 12


@functools.cache
def text_space() -> ElasticSpace:
    made = load_space(
        "text_encoder", input_shape=(LENGTH,), num_classes=3, vocabulary=VOCABULARY,
        techniques=make_techniques(None), capabilities=networks.EVERYTHING,
    )  # fmt: skip
    networks.randomise(made.graph.module)
    return made


@functools.cache
def elastic() -> ElasticModel:
    return ElasticModel(text_space().graph, text_space().techniques).eval()


class TestTextEncoder(SpaceContract):
    samples = 6

    @pytest.fixture
    def space(self) -> ElasticSpace:
        return text_space()


def rows(n: int, length: int, seed: int = 0) -> torch.Tensor:
    """Ids with padding of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (n, length), generator=generator)
    real = torch.randint(1, length + 1, (n, 1), generator=generator)
    return torch.where(torch.arange(length) < real, ids, 0)


def exported(candidate: Candidate, path: Path) -> tuple[torch.nn.Module, ExportedModel]:
    ops = text_space().graph.operations(candidate)
    model = simulate_quantization(realise(elastic(), candidate), ops, [rows(64, LENGTH)])
    return model, export_onnx(model, ops, text_space().graph.example_inputs, path)


def with_tokens(**settings: Any) -> Candidate:
    return Candidate(layers={"tokens": LayerPolicy(**settings)})


CANDIDATES = {
    "fp32": Candidate(),
    "int8": uniform(text_space().graph.layers, 8, 8),
    "int4 stored": uniform(text_space().graph.layers, 4, 32),
    "tokens of 8 bits": with_tokens(weight_bits=8),
    "tokens of 4 bits": with_tokens(weight_bits=4),
    "tokens of 2 bits": with_tokens(weight_bits=2),
    "tokens of 16 bits": with_tokens(weight_bits=16),
    "tokens of 16 values": with_tokens(codebook=16),
    "tokens of 256 values": with_tokens(codebook=256),
    "tokens of rank 16": with_tokens(rank=16),
    "tokens of rank 16 and 4 bits": with_tokens(rank=16, weight_bits=4),
}


@pytest.fixture(params=CANDIDATES, ids=lambda name: name.replace(" ", "-"))
def candidate(request: pytest.FixtureRequest) -> Candidate:
    return CANDIDATES[request.param]


def test_any_batch_and_length_give_torchs_outputs(candidate: Candidate, tmp_path: Path) -> None:
    model, _ = exported(candidate, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    quantized = any(p.activation_bits == 8 for p in candidate.layers.values())
    for n, length in ((1, LENGTH), (5, LENGTH), (3, 7), (2, 1), (64, 5)):
        x = rows(n, length, seed=length)
        with torch.no_grad():
            expected = model(x)
        (found,) = session.run(None, {"ids": x.numpy()})
        largest = float((expected - torch.from_numpy(found)).abs().max())
        assert largest <= (0.05 * float(expected.abs().max()) if quantized else 1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_shared_weights_run_as_what_is_built_at_any_length(seed: int) -> None:
    """Whatever the batch and the padding, a row of nothing but padding included."""
    drawn = text_space().decode(text_space().sample(np.random.default_rng(seed)))
    ops = text_space().graph.operations(drawn)
    model = simulate_weights(realise(elastic(), drawn), ops)
    try:
        elastic().configure(drawn)
        for n, length in ((1, LENGTH), (5, LENGTH), (3, 7), (1, 1)):
            x = rows(n, length, seed=length)
            x[-1, length // 2 :] = 0
            with torch.no_grad():
                expected, found = model(x), elastic()(x)
            assert float((expected - found).abs().max()) <= 1e-4
    finally:
        elastic().configure(Candidate())


def test_its_bytes_are_known_before(candidate: Candidate, tmp_path: Path) -> None:
    _, made = exported(candidate, tmp_path / "m.onnx")
    ops = text_space().graph.operations(candidate)
    assert made.size_bytes == pytest.approx(size_bytes(ops, quantized_tensors(ops)), rel=0.03)


def test_the_example_is_kept_beside_free_sizes(tmp_path: Path) -> None:
    exported(Candidate(), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    dims = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", "length"]
    assert {p.key: p.value for p in model.metadata_props} == {"example_shape:ids": f"1,{LENGTH}"}
    (spec,) = load_runtime().load(tmp_path / "m.onnx").inputs
    assert (spec.shape, spec.zeros().shape) == ((None, None), (1, LENGTH))


@pytest.mark.parametrize("name", ["fp32", "int8", "tokens of 4 bits", "tokens of 16 values"])
def test_what_is_priced_is_what_runs(name: str, tmp_path: Path) -> None:
    """Kernels agree, but for views, shapes and the cut of the positions."""
    exported(CANDIDATES[name], tmp_path / "m.onnx")
    ops = text_space().graph.operations(CANDIDATES[name])
    mine = lower(ops, quantized_tensors(ops))
    runs = signatures(load_runtime().kernels(tmp_path / "m.onnx"))
    assert _of_weight(mine) == _of_weight(runs)


def _of_weight(kernels: tuple[KernelSignature, ...]) -> list[str]:
    passing = {"Shape", "Slice", "Concat", "Sub", "Add"}
    kept = [k for k in kernels if not k.is_view and k.op_type not in passing]
    return sorted(kernel.key for kernel in kept)


def test_feed_forward_width_and_depth_shrink_the_file(tmp_path: Path) -> None:
    _, whole = exported(Candidate(), tmp_path / "whole.onnx")
    narrow = Candidate(layers={"blocks.0.feed_forward.0": LayerPolicy(width=64)})
    _, less = exported(narrow, tmp_path / "narrow.onnx")
    lost = 4 * (256 - 64) * (64 + 1 + 64)
    assert whole.size_bytes - less.size_bytes == pytest.approx(lost, rel=0.01)
    _, short = exported(Candidate(architecture={"depth:blocks": 1}), tmp_path / "short.onnx")
    block = sum(
        layer.parameters
        for layer in text_space().graph.layers.values()
        if layer.name.startswith("blocks.2.")
    )
    assert whole.size_bytes - short.size_bytes > 2 * 4 * block


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model, _ = exported(Candidate(), tmp_path / "m.onnx")
    x = rows(8, 6)
    padded = torch.cat([x, torch.zeros(8, LENGTH - 6, dtype=torch.int64)], 1)
    with torch.no_grad():
        assert torch.allclose(model(x), model(padded), atol=1e-5)


def test_tokens_offer_the_bits_of_weights_alone() -> None:
    choices = {choice.name: choice.options for choice in text_space().choices}
    assert choices["precision:tokens"] == ("fp32", "w8a32", "w4a32", "w2a32")
    assert choices["rank:tokens"][0] is None
    assert all(str(rank).startswith("svd:") for rank in choices["rank:tokens"][1:])
    whole = uniform(text_space().graph.layers, 8, 8)
    assert text_space().decode(text_space().encode(whole)) == replace(
        text_space().decode(text_space().encode(Candidate())), layers=whole.layers
    )


@pytest.mark.parametrize(
    ("shape", "vocabulary"), [((12,), None), ((3, 8, 8), None), ((3, 8), 50)], ids=str
)
def test_inputs_it_is_not_made_for(shape: Any, vocabulary: int | None) -> None:
    with pytest.raises(RequestError, match="token ids"):
        load_space("text_encoder", input_shape=shape, num_classes=2, vocabulary=vocabulary)


def test_other_spaces_take_no_token_ids() -> None:
    with pytest.raises(RequestError, match="tiny_cnn is not for token ids"):
        load_space("tiny_cnn", input_shape=(12,), num_classes=2, vocabulary=50)


def test_its_embedding_is_a_layer_and_its_positions_are_counted() -> None:
    graph = text_space().graph
    assert graph.layers["tokens"].kind == "embedding"
    assert graph.layers["tokens"].parameters == VOCABULARY * 64
    ops = graph.operations(Candidate())
    held = sum(np.prod(op.weight_shape) for op in ops if op.kind == "add" and op.weight_shape)
    assert held == LENGTH * 64


def test_a_device_without_a_runtime_reads_the_file(candidate: Candidate, tmp_path: Path) -> None:
    exported(candidate, tmp_path / "m.onnx")
    (embedding,) = [op for op in read_operations(tmp_path / "m.onnx") if op.kind == "embedding"]
    (own,) = [op for op in text_space().graph.operations(candidate) if op.kind == "embedding"]
    assert (embedding.shape, embedding.weight_shape) == (own.shape, own.weight_shape)
    if not own.codebook:
        assert embedding.weight_bits == own.weight_bits


def test_openvino_runs_it_at_any_length(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    exported(CANDIDATES["tokens of 4 bits"], tmp_path / "m.onnx")
    session = load_runtime("openvino").load(tmp_path / "m.onnx")
    assert session.inputs[0].zeros().shape == (1, LENGTH)
    ours = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for length in (LENGTH, 5):
        x = rows(3, length).numpy()
        assert np.abs(session.run([x])[0] - ours.run(None, {"ids": x})[0]).max() <= 1e-4


@pytest.mark.parametrize("name", ["fp32", "int8", "tokens of 4 bits", "tokens of 16 values"])
def test_an_analytic_device_reads_the_rows_alone(name: str) -> None:
    """A table costs what is looked up in it, and attention its two products."""
    ops = text_space().graph.operations(CANDIDATES[name])
    kernels = lowering(PLAIN)(ops, quantized_tensors(ops))
    (table,) = [k for owner, k in kernels if owner == "embedding"]
    stored = {"fp32": 4}.get(name, 1)
    assert table.weight_bytes == LENGTH * 64 * stored
    first = [op for op in ops if op.kind in {"matmul", "softmax"} or _is_masking(op, ops)][:4]
    assert [op.kind for op in first] == ["matmul", "add", "softmax", "matmul"]
    names = {op.name for op in first}
    products = [k for owner, k in kernels if owner in names]
    kept = [k.op_type for k in products if k.op_type not in ("Dequantize", "Quantize")]
    assert kept == ["MatMul", "Add", "Softmax", "MatMul"]
    assert sum(work_of(k) for k in products if k.op_type == "MatMul") == 2 * LENGTH * LENGTH * 64


def _is_masking(op: Op, ops: Sequence[Op]) -> bool:
    """Whether an addition is that of a mask to the scores of an attention."""
    scores = {one.name for one in ops if one.kind == "matmul"}
    return op.kind == "add" and not scores.isdisjoint(op.inputs)


@pytest.mark.parametrize("name", ["fp32", "int8", "tokens of 4 bits"])
def test_a_network_to_time_elsewhere_runs_as_the_real_one(name: str, tmp_path: Path) -> None:
    ops = text_space().graph.operations(CANDIDATES[name])
    quantized = quantized_tensors(ops)
    stand_in = synthesise(ops, quantized)
    session = onnxruntime.InferenceSession(stand_in)
    assert session.run(None, {"ids": rows(2, LENGTH).numpy()})[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "shape", "count"), [("3x8x9", (3, 8, 9), None), ("64@8192", (64,), 8192)]
)
def test_inputs_as_texts(text: str, shape: tuple[int, ...], count: int | None) -> None:
    assert (texts.input_shape(text), texts.vocabulary(text)) == (shape, count)


@pytest.mark.parametrize("text", ["64@", "64@1", "64@x"])
def test_texts_that_are_no_vocabularies(text: str) -> None:
    with pytest.raises(RequestError, match="--input is"):
        texts.vocabulary(text)


@pytest.mark.parametrize("text", ["@9", "6 4"])
def test_texts_that_are_no_shapes(text: str) -> None:
    with pytest.raises(RequestError, match="--input is"):
        texts.input_shape(text)
