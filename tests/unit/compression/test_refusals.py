"""Whatever a technique offers no gene for, it says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import FP32, Capabilities
from autocompress.elastic.space import ElasticSpace
from autocompress.graph.inspect import inspect_model
from tests.unit.networks import EVERYTHING, Concatenated, MobileNet, ResNet, graph

NETWORKS = [ResNet, MobileNet, Concatenated]
#: A device without integers, where the packed file is nobody's concern.
PLAIN = Capabilities(precisions=(FP32,))


@pytest.mark.parametrize("capabilities", [EVERYTHING, PLAIN], ids=["everything", "plain"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_gene_or_a_reason_never_neither(
    kind: type[nn.Module], capabilities: Capabilities
) -> None:
    found = graph(kind)
    for technique in make_techniques(None):
        genes = {c.name.partition(":")[2] for c in technique.choices(found, capabilities)}
        refused = {r.name for r in technique.refusals(found, capabilities) if r.setting == "any"}
        assert not genes & refused
        everything = set(found.layers)
        if technique.name == "pruning":
            everything = set(found.groups) | (everything - set(found.group_of))
        assert genes | refused == everything
        assert all(r.reason for r in technique.refusals(found, capabilities))


def test_reasons_are_the_devices_or_the_layers() -> None:
    space = ElasticSpace(graph(MobileNet), capabilities=PLAIN)
    reasons = {(r.technique, r.name): r.reason for r in space.refusals}
    first = next(iter(space.graph.layers))
    assert reasons["quantization", first] == "the device's profile offers floats only"
    assert "packed file was not asked for" in reasons["sparsity", first]
    assert "packed file was not asked for" in reasons["clustering", first]
    depthwise = next(n for n, layer in space.graph.layers.items() if layer.is_depthwise)
    assert reasons["low_rank", depthwise].startswith("depthwise convolution")


def test_forms_that_a_device_does_not_offer() -> None:
    few = replace(EVERYTHING, precisions=EVERYTHING.precisions[:2])
    space = ElasticSpace(graph(ResNet), capabilities=few)
    forms = {r.setting for r in space.refusals if r.name == "(every layer)"}
    assert {"w4a8", "w2a8"} <= forms
    assert not forms & {"fp32", "w8a8"}


def test_each_form_of_low_rank_that_a_layer_does_not_get_says_why() -> None:
    found = graph(ResNet)
    for names in (["low_rank"], ["low_rank:tucker", "low_rank:svd", "low_rank:cp"]):
        (technique,) = make_techniques(names)
        genes = {c.name.partition(":")[2]: c for c in technique.choices(found, EVERYTHING)}
        said = {(r.name, r.setting): r.reason for r in technique.refusals(found, EVERYTHING)}
        forms = ("tucker", "svd", "cp") if len(names) > 1 else ("spatial", "cp", "whitened")
        for name, layer in found.layers.items():
            options = genes[name].options if name in genes else ()
            held = {str(option).partition(":")[0] for option in options if option is not None}
            for form in forms:
                assert (form in held) != ((name, form) in said), (name, form)
            if layer.kind == "linear" and (name, "cp") in said:
                assert said[name, "cp"] == "it is linear, and that form needs a larger kernel"
        assert (("(every layer)", "tucker") in said) == (len(names) == 1)


def test_a_form_that_saves_nothing_says_so() -> None:
    module = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Flatten(), nn.Linear(64 * 36, 10))
    found = inspect_model(module, (torch.zeros(1, 4, 8, 8),))
    (technique,) = make_techniques(["low_rank:tucker", "low_rank:cp", "low_rank:svd"])
    said = {(r.name, r.setting): r.reason for r in technique.refusals(found, EVERYTHING)}
    assert {setting for name, setting in said if name == "0"} == {"cp"}  # the others pay
    assert said["0", "cp"].startswith("no rank in steps of 4 needs 80% of its multiplications")


def test_groups_are_refused_once_whatever_the_form() -> None:
    found = graph(MobileNet)
    depthwise = {n for n, layer in found.layers.items() if layer.is_depthwise}
    (technique,) = make_techniques(["low_rank"])
    said = [r for r in technique.refusals(found, EVERYTHING) if r.name in depthwise]
    assert {r.setting for r in said} == {"any"}
    assert len(said) == len(depthwise)
