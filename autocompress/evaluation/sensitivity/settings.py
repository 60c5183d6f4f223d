"""The single settings whose loss is asked for, and in which order they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autocompress.core.candidate import Candidate, Scalar
from autocompress.core.space import Choice, Genome
from autocompress.elastic.space import ElasticSpace
from autocompress.graph.selection import DEPTH

#: What tells most about a front is looked at first; the others come after.
_FIRST = {"w4a8": 0, "depth": 1, "width": 2, "branch": 3, "kernel": 3, "rank": 4, "w2a8": 4}
_LATER = 5
#: Settings of each kind that are tried before all others, spread over layers and options, so that
#: estimates of what is not tried have something of every kind to go by.
_PILOTS = 5
ARCHITECTURE = "architecture"


@dataclass(frozen=True, eq=False)
class Setting:
    """One gene at one option, everything else as in the original.

    Attributes:
        gene: the gene's name, such as "precision:layer1.0.conv1".
        option: index of the chosen option; 0 is the original's.
        kind: what the gene decides: "precision", "width", "rank", "sparsity", "depth" …
        target: the layer, channel group, stage or module that it is about.
        technique: name of the technique that offers it; "architecture" for the others.
        label: the setting as people write it: "w4a8", "width 0.5", "rank svd:16", "sparsity 0.7".
        genome: of the whole candidate.
        candidate: the original with this setting alone.
        layers: the layers whose policies it changes.
    """

    gene: str
    option: int
    kind: str
    target: str
    technique: str
    label: str
    genome: Genome
    candidate: Candidate
    layers: tuple[str, ...]

    @cached_property
    def urgency(self) -> int:
        """Settings of a smaller one are tried earlier; mild ones before strong ones."""
        what = self.label if self.kind == "precision" else self.kind
        return _FIRST.get(what, _LATER) + (0 if self.kind == "precision" else self.option - 1)


def single_settings(space: ElasticSpace) -> list[Setting]:
    """Every setting of every gene that changes the original on its own, in the genes' order."""
    found = []
    for i, choice in enumerate(space.choices):
        if choice.kind == "recipe":
            continue  # nothing is trained here
        for option in range(1, len(choice.options)):
            genome = space.original
            genome[i] = option
            if (space.canonical(genome) == genome).all():  # else the gene has no effect there
                found.append(_setting(space, choice, option, genome))
    return found


def _setting(space: ElasticSpace, choice: Choice, option: int, genome: Genome) -> Setting:
    kind, _, target = choice.name.partition(":")
    technique = space.technique_of(choice)
    layers = tuple(n for n in space.layers_of(choice) if n in space.graph.layers)
    return Setting(
        gene=choice.name,
        option=option,
        kind=kind,
        target=target,
        technique=ARCHITECTURE if technique is None else technique.name,
        label=_label(kind, choice.options[option], choice.options[0]),
        genome=genome,
        candidate=space.decode(genome),
        layers=layers if technique is not None else _blocks_layers(space, choice, option),
    )


def _blocks_layers(space: ElasticSpace, choice: Choice, option: int) -> tuple[str, ...]:
    """The layers that a depth leaves out."""
    kind, _, stage = choice.name.partition(":")
    if kind + ":" != DEPTH:
        return ()
    dropped = space.graph.stages[stage][int(choice.options[option] or 0) :]
    return tuple(layer for block in dropped for layer in block.layers)


def _label(kind: str, value: Scalar | None, full: Scalar | None) -> str:
    """``value`` in words; widths as shares of what there could be."""
    if kind == "precision":
        return str(value)
    if kind == "width" and isinstance(value, int) and isinstance(full, int):
        return f"width {value / full:.3g}"
    return f"{kind} {value}"


def in_order_of_interest(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Rounds of settings to try one after the other: a cut leaves an even picture.

    First a few of every kind, then kind by kind, the most telling and the mildest first.
    """
    pilots: dict[str, list[Setting]] = {}
    for setting in settings:
        pilots.setdefault(setting.kind, []).append(setting)
    first = []
    for kind in pilots.values():
        places = np.linspace(0, len(kind) - 1, _PILOTS).round().astype(int)
        first += [kind[i] for i in sorted(set(places.tolist()))]
    taken = {(s.gene, s.option) for s in first}
    rounds: dict[tuple[int, str, str], list[Setting]] = {}
    for setting in settings:
        if (setting.gene, setting.option) not in taken:
            label = setting.label if setting.kind == "precision" else ""
            rounds.setdefault((setting.urgency, setting.kind, label), []).append(setting)
    return [first, *(rounds[key] for key in sorted(rounds))]
