"""Whatever a technique offers no gene for, it says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import FP32, Capabilities
from autocompress.elastic.space import ElasticSpace
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
