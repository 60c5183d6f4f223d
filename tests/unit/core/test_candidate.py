"""Candidates: equal content is equal, whatever way it went; wrong values are refused."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.candidate import (
    ACTIVATION_BITS,
    DISTILLATIONS,
    FACTORIZATIONS,
    WEIGHT_BITS,
    Candidate,
    LayerPolicy,
    Recipe,
)
from autocompress.errors import RequestError

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
COUNTS = st.none() | st.integers(1, 4096)
FACTORISED: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"rank": st.integers(1, 4096), "factorization": st.sampled_from(FACTORIZATIONS)}
    ),
    st.fixed_dictionaries(
        {
            "rank": st.integers(1, 64),
            "input_rank": st.integers(1, 64),
            "factorization": st.just("tucker"),
        }
    ),
)
ZEROS = st.sampled_from([(0.5, "2:4"), (0.9375, "1:16"), (0.75, "1:4")]) | st.tuples(
    st.floats(0, 1, exclude_max=True), st.sampled_from(["unstructured", "block:1x4", "block:4x1"])
)


def _policy(factorised: dict[str, Any], zeros: tuple[float, str], **fields: Any) -> LayerPolicy:
    return LayerPolicy(sparsity=zeros[0], pattern=zeros[1], **factorised, **fields)


POLICIES = st.builds(
    _policy,
    factorised=FACTORISED,
    zeros=ZEROS,
    weight_bits=st.sampled_from(WEIGHT_BITS),
    activation_bits=st.sampled_from(ACTIVATION_BITS),
    width=COUNTS,
    codebook=st.none() | st.integers(3, 256),
)
RECIPES = st.builds(
    Recipe,
    distillation=st.sampled_from(DISTILLATIONS),
    distillation_weight=st.floats(0, 1),
    temperature=st.floats(0.1, 100),
    learning_rate=st.floats(1e-6, 1.0),
    steps=st.none() | st.integers(0, 100_000),
    feature_weight=st.floats(0, 100),
)
SCALARS = st.integers(-1000, 1000) | st.booleans() | NAMES | st.floats(allow_nan=False, width=32)
CANDIDATES = st.builds(
    Candidate,
    architecture=st.dictionaries(NAMES, SCALARS, max_size=5),
    layers=st.dictionaries(NAMES, POLICIES, max_size=5),
    recipe=RECIPES,
)


@settings(deadline=None)
@given(CANDIDATES)
def test_json_round_trip(candidate: Candidate) -> None:
    text = json.dumps(candidate.to_json())
    back = Candidate.from_json(json.loads(text))
    assert back == candidate
    assert back.hash == candidate.hash
    assert back.layers == candidate.layers
    assert back.recipe == candidate.recipe
    assert {k: (type(v), v) for k, v in back.architecture.items()} == {
        k: (type(v), v) for k, v in candidate.architecture.items()
    }


@settings(deadline=None)
@given(CANDIDATES)
def test_pickling_keeps_content_and_hash(candidate: Candidate) -> None:
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        back = pickle.loads(pickle.dumps(candidate, protocol))  # noqa: S301 - our own bytes
        assert back == candidate
        assert back.hash == candidate.hash


@settings(deadline=None)
@given(st.dictionaries(NAMES, POLICIES, max_size=6), st.randoms())
def test_order_of_names_does_not_matter(layers: dict[str, LayerPolicy], rng: Any) -> None:
    names = list(layers)
    rng.shuffle(names)
    shuffled = {name: layers[name] for name in names}
    assert Candidate(layers=shuffled).hash == Candidate(layers=layers).hash


@settings(deadline=None)
@given(CANDIDATES, CANDIDATES)
def test_equal_exactly_when_hashes_are(first: Candidate, second: Candidate) -> None:
    assert (first == second) == (first.hash == second.hash)
    assert len({first, second}) == (1 if first == second else 2)


def test_hash_is_stable_across_versions() -> None:
    """It names files and rows in run folders: a change would orphan them."""
    candidate = Candidate(
        architecture={"depth:layer1": 2, "branch:b": "dense"},
        layers={"layer1.conv1": LayerPolicy(weight_bits=4, activation_bits=8, width=16)},
    )
    assert candidate.hash == Candidate.from_json(candidate.to_json()).hash
    assert candidate.id == candidate.hash[:12]
    assert candidate.id == "f295da326bd7"
    assert Candidate().id == "a2a1a13fa62e"


def test_recipes_of_older_runs_are_read_and_keep_their_hash() -> None:
    old: dict[str, Any] = {
        "distillation": "response", "distillation_weight": 0.7, "temperature": 3.0,
        "learning_rate": 1e-3, "steps": None,
    }  # fmt: skip
    assert Recipe().to_json() == old
    assert Recipe(**old) == Recipe()
    assert Recipe(feature_weight=2.0).to_json() == {**old, "feature_weight": 2.0}


def test_default_policies_are_distinct_from_absent_ones_in_name_only() -> None:
    assert Candidate().policy("anything") == LayerPolicy()
    assert LayerPolicy().to_json() == {}
    assert LayerPolicy(rank=3).to_json() == {"rank": 3}


def test_content_cannot_be_changed_from_outside() -> None:
    layers = {"a": LayerPolicy(width=4)}
    candidate = Candidate(layers=layers)
    before = candidate.hash
    layers["b"] = LayerPolicy(width=2)
    assert list(candidate.layers) == ["a"]
    with pytest.raises(TypeError):
        candidate.layers["b"] = LayerPolicy()  # type: ignore[index]
    assert Candidate(layers=dict(candidate.layers)).hash == before


def test_with_layers_keeps_the_rest() -> None:
    candidate = Candidate(architecture={"depth:a": 1}, recipe=Recipe(steps=3))
    other = candidate.with_layers({"x": LayerPolicy(rank=2)})
    assert other.architecture == candidate.architecture
    assert other.recipe == candidate.recipe
    assert other.policy("x").rank == 2
    assert other != candidate


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"weight_bits": 7}, "weight_bits is 7"),
        ({"rank": 4, "factorization": "magic"}, "factorization is 'magic'; use one of svd"),
        ({"factorization": "cp"}, "factorization 'cp' .* needs a rank"),
        ({"input_rank": 4}, "input_rank 4 needs a rank"),
        ({"rank": 4, "input_rank": 2}, "input_rank is 2, but factorization 'svd' has one rank"),
        ({"rank": 4, "input_rank": 0, "factorization": "tucker"}, "input_rank is 0"),
        ({"weight_bits": 8.0}, "weight_bits is 8.0"),
        ({"weight_bits": True}, "weight_bits is True"),
        ({"weight_bits": "8"}, "weight_bits is '8'"),
        ({"activation_bits": 2}, "activation_bits is 2"),
        ({"activation_bits": None}, "activation_bits is None"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"sparsity": float("nan")}, "sparsity is nan"),
        ({"sparsity": "half"}, "sparsity is 'half'"),
        ({"width": 0}, "width is 0"),
        ({"width": 2.5}, "width is 2.5"),
        ({"rank": -1}, "rank is -1"),
        ({"rank": "4"}, "rank is '4'"),
        ({"codebook": 0}, "codebook is 0"),
        ({"pattern": "sometimes"}, "pattern is 'sometimes'"),
        ({"pattern": "0:4"}, "pattern is '0:4'"),
        ({"pattern": None}, "pattern is None"),
        ({"pattern": "4:4", "sparsity": 0.0}, "pattern is '4:4'"),
        ({"pattern": "block:0x4"}, "pattern is 'block:0x4'"),
        ({"pattern": "2:4"}, "sparsity is 0.0 with pattern '2:4'.*0.5 zero; give that"),
        ({"pattern": "1:4", "sparsity": 0.5}, "sparsity is 0.5 with pattern '1:4'.*0.75 zero"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_policy(values: dict[str, Any], shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        LayerPolicy(**values)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"distillation": "telepathy"}, "distillation is 'telepathy'"),
        ({"distillation_weight": 1.5}, "distillation_weight is 1.5"),
        ({"distillation_weight": float("nan")}, "distillation_weight is nan"),
        ({"temperature": 0.0}, "temperature .0.0."),
        ({"temperature": float("nan")}, "temperature .nan."),
        ({"learning_rate": -1.0}, "learning_rate .-1.0."),
        ({"learning_rate": float("inf")}, "learning_rate .inf."),
        ({"steps": -1}, "steps is -1"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"feature_weight": -1.0}, "feature_weight is -1.0"),
        ({"feature_weight": float("inf")}, "feature_weight is inf"),
        ({"feature_weight": float("nan")}, "feature_weight is nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_recipe(values: dict[str, Any], shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        Recipe(**values)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"architecture": {}, "layers": {}},
        {"architecture": {}, "layers": {"a": {"bits": 8}}, "recipe": {}},
        {"architecture": {}, "layers": {}, "recipe": {"speed": 1}},
        {"architecture": ["ab", "c"], "layers": {}, "recipe": {}},
        {"architecture": 3, "layers": {}, "recipe": {}},
        {"architecture": {}, "layers": [], "recipe": {}},
        {"architecture": {}, "layers": {"a": 3}, "recipe": {}},
        [],
        "candidate",
        None,
    ],
    ids=repr,
)
def test_what_is_no_candidate(value: Any) -> None:
    with pytest.raises(RequestError, match="not a candidate's JSON"):
        Candidate.from_json(value)


def test_bad_value_in_json_is_named() -> None:
    value = {"architecture": {}, "layers": {"a": {"width": 0}}, "recipe": {}}
    with pytest.raises(RequestError, match=r"^width is 0"):
        Candidate.from_json(value)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "expected"),
    [(8, 8, True), (4, 8, True), (4, 32, False), (32, 8, False), (16, 16, False)],
)
def test_is_quantized(weight_bits: int, activation_bits: int, expected: bool) -> None:
    policy = LayerPolicy(weight_bits=weight_bits, activation_bits=activation_bits)
    assert policy.is_quantized is expected
