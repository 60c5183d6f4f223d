"""The search space of a captured model: architecture and compression in one genome."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compression.base import Technique
from autocompress.compression.pruning import WIDTH
from autocompress.compression.refusals import Refusal
from autocompress.compression.registry import default_techniques
from autocompress.core.candidate import Candidate, LayerPolicy, Recipe, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.held import hold, parse_held
from autocompress.core.space import Choice, Condition, Genome, SearchSpace
from autocompress.elastic.depths import least_depths
from autocompress.elastic.model import ElasticModel, reorder_channels
from autocompress.elastic.realise import realise
from autocompress.errors import RequestError
from autocompress.graph.capture_check import agree, random_like
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph, Skipped
from autocompress.graph.selection import BRANCH, DEPTH, RESOLUTION


class ElasticSpace(SearchSpace):
    """Every depth, branch, width, kernel, precision, rank and sparsity of one captured model.

    Args:
        graph: the captured model; for a named space, its largest network.
        name: what the space is reported as.
        techniques: the techniques that add genes.
        capabilities: what the target device exploits.
        architecture: further architecture choices, such as ``Choice("kernel:stem", (5, 3))``.
        trained: whether the captured weights are trained; otherwise a search trains them first.
        held: choices that stay as the original has them, as in :func:`autocompress.search`.
        inherited: further ones, held in a space that this one is made from; its techniques may have
            added choices that are not there now.

    Raises:
        RequestError: there is no choice of a name in ``held``.
    """

    def __init__(
        self,
        graph: ModelGraph,
        *,
        name: str = "model",
        techniques: Sequence[Technique] | None = None,
        capabilities: Capabilities | None = None,
        architecture: Sequence[Choice] = (),
        trained: bool = True,
        held: Sequence[str] = (),
        inherited: Sequence[str] = (),
    ) -> None:
        self.graph = without_unusable_widths(graph)
        self.techniques = tuple(default_techniques() if techniques is None else techniques)
        self.capabilities = capabilities or Capabilities()
        self._name = name
        self.trained = trained
        self.held = parse_held((*parse_held(inherited), *parse_held(held)))
        conditions = _Conditions(self.graph)
        genes = [*_architecture_choices(self.graph, conditions), *architecture]
        owner: dict[str, Technique] = {}
        for technique in sorted(self.techniques, key=lambda t: t.order):
            for choice in technique.choices(self.graph, self.capabilities):
                owner[choice.name] = technique
                genes.append(choice)
        self._owner = owner
        conditioned = [
            gene
            if gene.condition is not None or gene.kind == "recipe"
            else replace(gene, condition=conditions.of(self._targets(gene.name)))
            for gene in genes
        ]
        self._added = tuple(architecture)
        self._choices = hold(conditioned, held, inherited=inherited)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        example_inputs: Sequence[torch.Tensor],
        *,
        name: str | None = None,
        techniques: Sequence[Technique] | None = None,
        capabilities: Capabilities | None = None,
        architecture: Sequence[Choice] = (),
        trained: bool = True,
        held: Sequence[str] = (),
    ) -> ElasticSpace:
        """The space of a trained model.

        Args:
            model: any module whose forward takes tensors and returns one tensor.
            example_inputs: one tensor per input, batch first.
            name: what the space is reported as; the model's class by default.
            techniques: the techniques that add genes; None takes all.
            capabilities: what the target device exploits.
            architecture: further architecture choices.
            trained: whether the model's weights are trained.
            held: choices that stay as the original has them, as in :func:`autocompress.search`.

        Raises:
            CaptureError: the model cannot be captured; names the user's line.
            RequestError: there is no choice of a name in ``held``.
        """
        return cls(
            inspect_model(model, example_inputs),
            name=name or type(model).__name__,
            techniques=techniques,
            capabilities=capabilities,
            architecture=architecture,
            trained=trained,
            held=held,
        )

    def specialised(
        self,
        techniques: Sequence[Technique],
        capabilities: Capabilities,
        held: Sequence[str] = (),
    ) -> ElasticSpace:
        """The same model and architecture choices under other techniques and another device.

        What is held here stays held, though the techniques that added it come and go.

        Raises:
            RequestError: there is no choice of a name in ``held``.
        """
        return ElasticSpace(
            self.graph, name=self._name, techniques=techniques, capabilities=capabilities,
            architecture=self._added, trained=self.trained, held=held, inherited=self.held,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """What the space is reported as."""
        return self._name

    @property
    def architectures(self) -> int:
        """How many it holds that differ in depth, branches, resolution, kernels or widths."""
        return self.count(lambda c: c.kind == "architecture" or c.name.startswith(WIDTH))

    @property
    def refusals(self) -> list[Refusal]:
        """Every layer and channel group that cannot take a technique or setting, with the reason.

        First what no technique can touch, then technique by technique.
        """
        groups = {f"width kept: {g.rigid}" for g in self.graph.groups.values()}
        whole = [
            Refusal(skipped.name, "any", skipped.reason)
            for skipped in self.graph.skipped
            if skipped.name not in self.graph.layers and skipped.reason not in groups
        ]
        return whole + [
            refusal
            for technique in self.techniques
            for refusal in technique.refusals(self.graph, self.capabilities)
        ]

    def technique_of(self, choice: Choice) -> Technique | None:
        """The technique that adds a gene; None for one of the architecture."""
        return self._owner.get(choice.name)

    def layers_of(self, choice: Choice) -> tuple[str, ...]:
        """The layers whose policies a technique's gene sets."""
        return self._targets(choice.name)

    @property
    def choices(self) -> Sequence[Choice]:
        """Depths and branches first, then every technique's genes."""
        return self._choices

    def decode(self, genome: Genome) -> Candidate:
        """The candidate of a genome."""
        genome = self.canonical(genome)
        active = self.active(genome)
        architecture: dict[str, Scalar] = {}
        fields: dict[str, dict[str, Any]] = defaultdict(dict)
        recipe: dict[str, Any] = {}
        for choice, gene, on in zip(self._choices, genome, active, strict=True):
            if not on:
                continue
            value = choice.options[int(gene)]
            technique = self._owner.get(choice.name)
            if technique is None:
                if value is not None:
                    architecture[choice.name] = value
                continue
            settings = technique.settings(choice, value)
            if choice.kind == "recipe":
                recipe.update(settings)
                continue
            for layer in self._targets(choice.name):
                fields[layer].update(settings)
        layers = {name: LayerPolicy(**values) for name, values in fields.items()}
        return Candidate(architecture=architecture, layers=layers, recipe=Recipe(**recipe))

    def encode(self, candidate: Candidate) -> Genome:
        """The canonical genome of a candidate.

        Raises:
            RequestError: the candidate does not belong to this space.
        """
        strangers = {*candidate.architecture} - {*self._index}
        strangers |= {*candidate.layers} - {*self.graph.layers}
        if strangers:
            raise RequestError(f"space {self._name!r} has no choice or layer {min(strangers)!r}")
        genome = np.zeros(len(self._choices), dtype=np.int64)
        for i, choice in enumerate(self._choices):
            technique = self._owner.get(choice.name)
            if technique is None:
                genome[i] = self._option(choice, candidate.architecture.get(choice.name))
                continue
            policy: LayerPolicy | Recipe = candidate.recipe
            if choice.kind != "recipe":
                policy = candidate.policy(self._targets(choice.name)[0])
            for option, value in enumerate(choice.options):
                wanted = technique.settings(choice, value)
                if all(getattr(policy, key) == v for key, v in wanted.items()):
                    genome[i] = option
                    break
            else:
                raise RequestError(
                    f"no option of {choice.name!r} gives {policy}; options: {choice.options}"
                )
        return self.canonical(genome)

    def build(self, candidate: Candidate) -> nn.Module:
        """A plain model of the candidate with the captured model's (sliced) weights."""
        return realise(ElasticModel(self.graph, self.techniques), candidate)

    def _option(self, choice: Choice, value: Scalar | None) -> int:
        if value is None:
            return 0
        if value not in choice.options:
            raise RequestError(f"{choice.name!r} is {value!r}; this space offers {choice.options}")
        return choice.options.index(value)

    def _targets(self, gene: str) -> tuple[str, ...]:
        kind, _, target = gene.partition(":")
        if kind + ":" == WIDTH:
            return tuple(
                name for name in self.graph.groups[target].producers if name in self.graph.layers
            )
        return (target,)


def _architecture_choices(graph: ModelGraph, conditions: _Conditions) -> list[Choice]:
    found: list[Choice] = []
    for stage, blocks in graph.stages.items():
        depths = tuple(range(len(blocks), conditions.least[stage] - 1, -1))
        if len(depths) > 1:
            found.append(Choice(DEPTH + stage, depths, "architecture"))
    for name, alternatives in graph.alternatives.items():
        branches = tuple(alternatives.branches)
        condition = conditions.of_layers(
            [layer for layers in alternatives.layers.values() for layer in layers]
        )
        found.append(Choice(BRANCH + name, branches, "architecture", False, condition))
    for name, resizing in graph.resizings.items():
        if len(resizing.sizes) > 1:
            found.append(Choice(RESOLUTION + name, tuple(resizing.sizes), "architecture"))
    return found


class _Conditions:
    """Which depth or branch gene decides whether a layer exists."""

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.least = least_depths(graph)
        self.by_layer: dict[str, Condition] = {}
        for stage, blocks in graph.stages.items():
            top = len(blocks)
            least = self.least[stage]
            for i, block in enumerate(blocks[least:], least):
                condition = Condition(DEPTH + stage, tuple(range(top, i, -1)))
                self.by_layer.update(dict.fromkeys(block.layers, condition))
        self.by_branch: dict[str, Condition] = {}
        for name, alternatives in graph.alternatives.items():
            for option, layers in alternatives.layers.items():
                condition = Condition(BRANCH + name, (option,))
                self.by_branch.update(dict.fromkeys(layers, condition))

    def of_layers(self, layers: Sequence[str]) -> Condition | None:
        """The depth condition that all these layers share, if any."""
        found = {self.by_layer.get(layer) for layer in layers}
        return found.pop() if len(found) == 1 else None

    def of(self, targets: Sequence[str]) -> Condition | None:
        """The condition under which any of these layers exists, where they share one."""
        layers = [name for name in targets if name in self.graph.layers]
        if not layers:
            return None
        branches = {self.by_branch.get(layer) for layer in layers}
        if len(branches) == 1 and None not in branches:
            return branches.pop()
        return self.of_layers(layers)


def without_unusable_widths(graph: ModelGraph) -> ModelGraph:
    """``graph`` with every group made rigid whose narrowing breaks the forward pass.

    Code such as ``x.view(-1, 64)`` bakes a channel count into the graph. Each group is narrowed
    once, on torch's meta device, and the final shape compared. Then the channels of all groups are
    shuffled, which changes no output where the dependencies between layers were read rightly.
    """
    full = graph.operations(Candidate())[-1].shape
    groups = dict(graph.groups)
    skipped = list(graph.skipped)
    for name, group in graph.groups.items():
        if group.rigid is not None or group.units < 2:
            continue
        policy = LayerPolicy(width=group.width_near(group.channels // 2))
        candidate = Candidate(layers={n: policy for n in group.producers if n in graph.layers})
        reason = _narrowing_error(graph, candidate, full)
        if reason is not None:
            groups[name] = replace(group, rigid=reason)
            skipped.append(Skipped(name, f"width kept: {reason}"))
    for name in _misread(replace(graph, groups=groups)):
        reason = "its channels cannot be reordered without changing the model's output"
        groups[name] = replace(groups[name], rigid=reason)
        skipped.append(Skipped(name, f"width kept: {reason}"))
    if skipped == list(graph.skipped):
        return graph
    return replace(graph, groups=groups, skipped=skipped)


def _misread(graph: ModelGraph) -> list[str]:
    """Names of the free groups whose channels are not where the dependency analysis says."""
    generator = torch.Generator().manual_seed(0)
    orders = {
        name: torch.tensor(
            group.expanded(torch.randperm(group.units, generator=generator).tolist())
        )
        for name, group in graph.groups.items()
        if group.rigid is None
    }
    inputs = random_like(graph.example_inputs)
    with torch.no_grad():
        try:
            expected = graph.module(*inputs)
        except Exception:  # the model may refuse random numbers
            inputs = list(graph.example_inputs)
            expected = graph.module(*inputs)

    def same(names: Sequence[str]) -> bool:
        shuffled = reorder_channels(graph, {name: orders[name] for name in names})
        with torch.no_grad():
            return agree(expected, shuffled(*inputs))

    if same(list(orders)):
        return []
    wrong = [name for name in orders if not same([name])]
    return wrong if same([name for name in orders if name not in wrong]) else list(orders)


def _narrowing_error(
    graph: ModelGraph, candidate: Candidate, shape: Mapping[int, int] | tuple[int, ...]
) -> str | None:
    try:
        narrowed = graph.operations(candidate)[-1].shape
    except Exception as error:  # whatever the user's operators raise is the reason
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"the forward pass does not work with fewer channels ({first})"
    if narrowed != shape:
        return f"narrowing it changes the model's output from {shape} to {narrowed}"
    return None
