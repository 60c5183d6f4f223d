"""Prices genomes by the hundred thousand: what one candidate taught is looked up for the next.

A candidate is a list of operations; each name among them is a *slot*. In three steps, each learnt
from candidates that were priced in full and checked by every further one:

1. a slot's operation follows from few genes;
2. which kernels it becomes (its template) follows from itself and the precision around it;
3. its price follows from its template and its operation.

Which tensors are quantised and how much memory is live is computed, not learnt (see
:mod:`autocompress.hardware.wiring`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.space import Genome, SearchSpace
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.blocked_layout import ALIGNMENT, BLOCK
from autocompress.hardware.influence import FeatureLookup, GeneLookup, Ints
from autocompress.hardware.lowering import lower_by_op
from autocompress.hardware.memory import peak_memory_bytes
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.size import FILE_BYTES, op_bytes
from autocompress.hardware.wiring import Flags, Wiring, flags_of
from autocompress.measurement.kernels import KernelSignature

Floats: TypeAlias = npt.NDArray[np.float64]
Operations: TypeAlias = Callable[[Genome], Sequence[Op]]

#: Columns of a slot's price: of its kernels, of its operation, and one that is not summed.
_HOT, _CTX, _WEIGHTS, _ACTIVATIONS, _KERNELS, _GUESSED, _DOUBT = range(7)
_MACS, _PARAMETERS, _SIZE = range(7, 10)
_SUMMED, _COLUMNS = 10, 11
_LARGEST = 10
_CHUNK = 1 << 13
_ROUND = 64
_CONSIDERED = 16


@dataclass(frozen=True, slots=True)
class _State:
    """What a slot of one candidate costs, as far as it does not depend on the table."""

    kernels: tuple[KernelSignature, ...] = ()
    macs: int = 0
    parameters: int = 0
    size: int = 0
    integer: bool = False

    @property
    def template(self) -> tuple[object, ...]:
        """The kernels without their sizes, and whether the result is stored as integers."""
        return self.integer, *(
            (
                k.op,
                tuple(None if t is None else (t.dtype, t.constant, len(t.shape)) for t in k.inputs),
                tuple(pair for pair in k.attributes if pair[0] in {"activation", "perm"}),
            )
            for k in self.kernels
        )


class _Numbers:
    """Numbers things in the order of their first appearance."""

    def __init__(self, first: object) -> None:
        self.of: dict[object, int] = {first: 0}

    def __getitem__(self, thing: object) -> int:
        return self.of.setdefault(thing, len(self.of))


@dataclass(eq=False)
class _Slot:
    """An operation by name, and what is known of it.

    ``ops[0]`` is "absent"; ``coarse[i]`` is the class of ``ops[i]`` without its sizes.
    """

    name: str
    place: int
    lookup: GeneLookup
    ops: list[Op | None] = field(default_factory=lambda: [None])
    op_numbers: _Numbers = field(default_factory=lambda: _Numbers(None))
    kinds: _Numbers = field(default_factory=lambda: _Numbers(None))
    coarse: list[int] = field(default_factory=lambda: [0])
    templates: _Numbers = field(default_factory=lambda: _Numbers(_State().template))
    template_of: FeatureLookup = field(default_factory=lambda: FeatureLookup([]))
    state_of: FeatureLookup = field(default_factory=lambda: FeatureLookup([]))
    flags: Flags | None = None

    def number(self, op: Op | None) -> int:
        found = self.op_numbers[op]
        if found == len(self.ops):
            self.ops.append(op)
            self.coarse.append(self.kinds[_coarse(op)])
        return found


@dataclass(slots=True)
class _Row:
    """A candidate priced in full."""

    genome: Genome
    ops: dict[str, int]
    templates: dict[str, int]
    states: dict[str, int]


class CandidatePricer:
    """Latency, bytes, peak memory, MACs and parameters of genomes, without building anything.

    Call it with genomes for a list of dictionaries, or use :meth:`arrays`. Answers are those of
    pricing one by one (:meth:`exact`) up to rounding. Not safe for several threads at once.

    Args:
        space: the search space; its ``graph.operations(candidate)`` describes candidates unless
            ``operations`` is given.
        predictor: prices kernels.
        operations: from a genome to its operations.
        seed: of the genomes from which the dependencies are first learnt.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: LatencyPredictor,
        *,
        operations: Operations | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.predictor = predictor
        self._operations = operations or _from_graph(space)
        self._sizes = np.asarray(space.sizes, dtype=np.int64)
        self._rng = np.random.default_rng(seed)
        self._slots: dict[str, _Slot] = {}
        self._states = _Numbers(_State())
        self._seen: dict[bytes, int] = {}
        self._rows: list[_Row] = []
        self._learnt_rows = 0
        self._features_seen = np.zeros((0, 0), dtype=np.int64)
        self._near: dict[str, list[int]] = {}
        self._prices = np.zeros((0, _COLUMNS))

    @property
    def full_evaluations(self) -> int:
        """How many candidates were priced in full so far."""
        return len(self._rows)

    # -- the public face --------------------------------------------------------------------------

    def __call__(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        """Priced metrics of each genome, in order."""
        if not len(genomes):
            return []
        columns = self.arrays(np.asarray(genomes, dtype=np.int64))
        names = list(columns)
        values = zip(*(columns[name].tolist() for name in names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in values]

    def arrays(self, genomes: Ints) -> dict[str, Floats]:
        """Priced metrics as arrays of shape ``(n,)``, given genomes of shape ``(n, genes)``."""
        if not self._rows:
            self._discover()
        if len(genomes) >= _ROUND:  # a spot check: cheap, and it may show an overlooked gene
            self._evaluate(genomes[int(self._rng.integers(len(genomes)))])
        parts = []
        for start in range(0, len(genomes), _CHUNK):
            columns = np.ascontiguousarray(genomes[start : start + _CHUNK].T)
            parts.append(self._price_chunk(columns))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def exact(self, genome: Genome) -> dict[str, float]:
        """The same for one genome, computed from its operations."""
        ops = self._operations(genome)
        quantized = quantized_tensors(ops)
        states = self._describe(ops, quantized)
        rows = np.array([self._priced(state) for state in states.values()])
        sums, largest = rows[:, :_SUMMED].sum(axis=0)[None], rows[:, _LARGEST].max()[None]
        peak = np.array([float(peak_memory_bytes(ops, quantized))])
        metrics = self._metrics(sums, largest, peak)
        return {name: float(values[0]) for name, values in metrics.items()}

    def kernels(self, genomes: Sequence[Genome]) -> list[KernelSignature]:
        """The kernels of some genomes, the most frequent first: what is worth measuring."""
        counts: dict[str, int] = {}
        found: dict[str, KernelSignature] = {}
        for genome in genomes:
            ops = self._operations(genome)
            for state in self._describe(ops, quantized_tensors(ops)).values():
                for kernel in state.kernels:
                    counts[kernel.key] = counts.get(kernel.key, 0) + 1
                    found[kernel.key] = kernel
        return [found[key] for key in sorted(found, key=lambda k: (-counts[k], k))]

    def refresh(self) -> None:
        """Take over prices that changed since (more rows were measured, or a calibration)."""
        self._prices = np.zeros((0, _COLUMNS))

    # -- one candidate in full --------------------------------------------------------------------

    def _describe(self, ops: Sequence[Op], quantized: frozenset[str]) -> dict[str, _State]:
        kernels: dict[str, list[KernelSignature]] = {}
        for name, kernel in lower_by_op(ops, quantized):
            kernels.setdefault(name, []).append(kernel)
        return {
            op.name: _State(
                tuple(kernels.get(op.name, ())),
                op.macs,
                op.parameters,
                op_bytes(op, quantized),
                op.name in quantized,
            )
            for op in ops
        }

    def _evaluate(self, genome: Genome) -> int:
        """Price a genome in full, once; returns its row."""
        genome = np.ascontiguousarray(genome, dtype=np.int64)
        key = genome.tobytes()
        if key in self._seen:
            return self._seen[key]
        ops = self._operations(genome)
        row = _Row(genome.copy(), {}, {}, {})
        self._place(ops)
        for op in ops:
            row.ops[op.name] = self._slots[op.name].number(op)
        for name, state in self._describe(ops, quantized_tensors(ops)).items():
            row.templates[name] = self._slots[name].templates[state.template]
            row.states[name] = self._states[state]
        self._seen[key] = len(self._rows)
        self._rows.append(row)
        return self._seen[key]

    def _place(self, ops: Sequence[Op]) -> None:
        """Give every operation a slot, in an order that fits all candidates."""
        if all(op.name in self._slots for op in ops):
            return
        order = list(self._slots)
        at = 0
        for op in ops:
            if op.name in self._slots:
                at = order.index(op.name) + 1
            else:
                order.insert(at, op.name)
                at += 1
        slots = {n: self._slots.get(n) or _Slot(n, 0, GeneLookup(self._sizes)) for n in order}
        for place, slot in enumerate(slots.values()):
            slot.place = place
            slot.flags = None
            # places moved, and features are numbered by place: what was learnt starts anew
            slot.template_of = FeatureLookup([len(slots) + place])
            slot.state_of = FeatureLookup([2 * len(slots), place])
        self._slots = slots
        self._near = {}
        self._learnt_rows = 0

    # -- learning ---------------------------------------------------------------------------------

    def _discover(self) -> None:
        """Vary every gene by itself, around the original and around a random genome."""
        for base in (self.space.original, self._rng.integers(0, self._sizes)):
            start = np.asarray(base, dtype=np.int64)
            self._evaluate(start)
            for gene, count in enumerate(self._sizes):
                rows = []
                for option in range(int(count)):
                    genome = start.copy()
                    genome[gene] = option
                    rows.append(self._evaluate(genome))
                for name, slot in self._slots.items():
                    ops = [self._rows[row].ops.get(name, 0) for row in rows]
                    if len(set(ops)) > 1:
                        slot.lookup.observe(gene, ops)

    def _learn(self) -> None:
        """Bring every look-up up to date with all rows; where they disagree, look closer."""
        while self._learnt_rows < len(self._rows):
            start = self._learnt_rows
            if not start:
                self._features_seen = np.zeros((0, 0), dtype=np.int64)
            fresh = self._rows[start:]
            columns = np.stack([row.genome for row in fresh], axis=1)
            chosen = np.array([[row.ops.get(name, 0) for row in fresh] for name in self._slots])
            for slot in self._slots.values():
                if not (start and slot.lookup.extend(columns, chosen[slot.place])):
                    self._relearn_ops(slot)
            self._learnt_rows = start + len(fresh)
            features = self._features(chosen)[0]
            seen = np.hstack([self._features_seen, features]) if start else features
            self._features_seen = seen
            for name, slot in self._slots.items():
                templates = np.array([row.templates.get(name, 0) for row in fresh])
                states = np.array([row.states.get(name, 0) for row in fresh])
                known = np.vstack([features, templates])
                first = start and slot.template_of.extend(features, templates)
                if first and slot.state_of.extend(known, states):
                    continue
                rows = self._rows[: self._learnt_rows]
                templates = np.array([row.templates.get(name, 0) for row in rows])
                states = np.array([row.states.get(name, 0) for row in rows])
                self._learn_features(slot, slot.template_of, seen, templates, coarse=True)
                known = np.vstack([seen, templates])
                self._learn_features(slot, slot.state_of, known, states, coarse=False)

    def _relearn_ops(self, slot: _Slot) -> None:
        """Learn from all rows which genes decide the slot's operation."""
        while True:
            columns = np.stack([row.genome for row in self._rows], axis=1)
            ops = np.array([row.ops.get(slot.name, 0) for row in self._rows])
            clash = slot.lookup.learn(columns, ops)
            if clash is None:
                return
            self._separate(slot, clash)

    def _separate(self, slot: _Slot, clash: tuple[int, int]) -> None:
        """Find the gene that two genomes differ in and that was thought not to matter."""
        one, other = (self._rows[row] for row in clash)
        genome, previous = one.genome.copy(), one.ops.get(slot.name, 0)
        for gene in np.flatnonzero(one.genome != other.genome).tolist():
            alike = slot.lookup.alike(gene)
            same = alike[genome[gene]] == alike[other.genome[gene]]
            genome[gene] = other.genome[gene]
            current = self._rows[self._evaluate(genome)].ops.get(slot.name, 0)
            if same and current != previous and slot.lookup.separate(gene):
                return
            previous = current
        for gene in np.flatnonzero(one.genome != other.genome).tolist():
            if slot.lookup.separate(gene):
                return
        raise RuntimeError(f"operation {slot.name!r} differs between two equal genomes")

    def _learn_features(
        self, slot: _Slot, lookup: FeatureLookup, matrix: Ints, payloads: Ints, *, coarse: bool
    ) -> None:
        """Let operations around the slot join in until nothing clashes, then drop what is idle."""
        grown = False
        while (clash := lookup.learn(matrix, payloads)) is not None:
            near = self._nearest(slot)
            # classes without sizes first: they have few values, so they generalise further
            order = [len(self._slots) + p for p in near] + ([] if coarse else near)
            differ = [f for f in order if matrix[f, clash[0]] != matrix[f, clash[1]]]
            differ = [f for f in differ if f >= len(self._slots)] or differ
            differ = differ[:_CONSIDERED]
            if not differ:
                raise RuntimeError(f"operation {slot.name!r} has two prices in one candidate")
            codes = lookup.codes(matrix)
            left = [_clashes(codes, matrix[feature], payloads) for feature in differ]
            lookup.features.append(differ[int(np.argmin(left))])
            grown = True
        if grown:
            lookup.thin_out(matrix, payloads)

    def _nearest(self, slot: _Slot) -> list[int]:
        """Places of all slots, nearest first in the graph of everything that was ever connected."""
        if slot.name in self._near:
            return self._near[slot.name]
        around: dict[int, set[int]] = {s.place: set() for s in self._slots.values()}
        for other in self._slots.values():
            for op in other.ops:
                for name in () if op is None else op.inputs:
                    around[other.place].add(self._slots[name].place)
                    around[self._slots[name].place].add(other.place)
        seen, queue = {slot.place: None}, deque([slot.place])
        while queue:
            for place in sorted(around[queue.popleft()]):
                if place not in seen:
                    seen[place] = None
                    queue.append(place)
        self._near[slot.name] = [*seen, *(p for p in around if p not in seen)]
        return self._near[slot.name]

    # -- many candidates --------------------------------------------------------------------------

    def _features(self, chosen: Ints) -> tuple[Ints, Wiring, npt.NDArray[np.bool_]]:
        """Rows: each slot's operation, then each slot's coarse class with its precision."""
        places = {name: slot.place for name, slot in self._slots.items()}
        for slot in self._slots.values():
            if slot.flags is None or len(slot.flags.elements) < len(slot.ops):
                slot.flags = flags_of(slot.ops, places)
        wiring = Wiring([s.flags for s in self._slots.values() if s.flags], chosen)
        quantized = wiring.quantized()
        coarse = np.stack(
            [
                np.array(slot.coarse, dtype=np.int64)[chosen[slot.place]] * 2
                for slot in self._slots.values()
            ]
        )
        coarse += quantized
        return np.vstack([chosen, coarse]), wiring, quantized

    def _price_chunk(self, columns: Ints) -> dict[str, Floats]:
        while True:
            self._learn()
            chosen, unknown, picks = self._choose(columns)
            if not unknown.any():
                features, wiring, quantized = self._features(chosen)
                states, picks = self._find_states(features)
                if not picks.size:
                    return self._add_up(states, wiring.peak_memory(quantized))
            elif not picks.size:
                raise RuntimeError("a genome's operations cannot be learnt")
            for column in picks:
                self._evaluate(columns[:, column])

    def _choose(self, columns: Ints) -> tuple[Ints, npt.NDArray[np.bool_], Ints]:
        """Each slot's operation, where that is not known, and candidates that would teach it."""
        chosen = np.empty((len(self._slots), columns.shape[1]), dtype=np.int64)
        picks: list[Ints] = []
        for slot in self._slots.values():
            codes = slot.lookup.codes(columns)
            chosen[slot.place] = slot.lookup.find(codes)
            lost = np.flatnonzero(chosen[slot.place] < 0)
            if lost.size:
                picks.append(lost[np.unique(codes[lost], return_index=True)[1]])
        return chosen, np.any(chosen < 0, axis=0), _most_wanted(picks)

    def _find_states(self, features: Ints) -> tuple[Ints, Ints]:
        """Each slot's state, and candidates that would teach those that are not known."""
        count = features.shape[1]
        matrix = np.vstack([features, np.zeros(count, dtype=np.int64)])
        states = np.empty((len(self._slots), count), dtype=np.int64)
        picks: list[Ints] = []
        for slot in self._slots.values():
            codes = slot.template_of.codes(matrix)
            matrix[-1] = slot.template_of.find(codes)
            second = slot.state_of.codes(matrix)
            states[slot.place] = slot.state_of.find(second)
            lost = np.flatnonzero(states[slot.place] < 0)
            if lost.size:
                mixed = np.where(matrix[-1, lost] < 0, -2 - codes[lost], second[lost])
                picks.append(lost[np.unique(mixed, return_index=True)[1]])
        return states, _most_wanted(picks)

    def _priced(self, state: _State) -> list[float]:
        prices = [self.predictor.price(kernel) for kernel in state.kernels]
        return [
            sum(p.hot_us for p in prices),
            sum(p.ctx_us for p in prices),
            sum(k.weight_bytes for k in state.kernels),
            sum(k.activation_bytes for k in state.kernels),
            len(prices),
            sum(p.hot_us for p in prices if not p.measured),
            sum(p.hot_us * p.error for p in prices),
            state.macs,
            state.parameters,
            state.size,
            max((k.largest_activation_bytes for k in state.kernels), default=0),
        ]

    def _add_up(self, states: Ints, peaks: Floats) -> dict[str, Floats]:
        known = list(self._states.of)
        if len(self._prices) < len(known):
            new = [self._priced(s) for s in known[len(self._prices) :] if isinstance(s, _State)]
            self._prices = np.concatenate([self._prices, np.array(new, dtype=np.float64)])
        summed = np.ascontiguousarray(self._prices[:, :_SUMMED])
        largest = np.ascontiguousarray(self._prices[:, _LARGEST])
        totals, tops = np.zeros((states.shape[1], _SUMMED)), np.zeros(states.shape[1])
        for row in states:
            totals += summed[row]
            np.maximum(tops, largest[row], out=tops)
        return self._metrics(totals, tops, peaks)

    def _metrics(self, sums: Floats, largest: Floats, peaks: Floats) -> dict[str, Floats]:
        predictor = self.predictor
        row = np.column_stack([sums[:, :_GUESSED], largest])
        latency = predictor.calibration.total_us(row, predictor.profile.runtime.run_us) / 1e3
        hot = np.maximum(sums[:, _HOT], 1e-9)
        error = np.hypot(max(predictor.validation.p90, 0.03), sums[:, _DOUBT] / hot)
        return {
            "latency_ms": latency,
            "latency_low_ms": latency * np.maximum(0.0, 1.0 - error),
            "latency_high_ms": latency * (1.0 + error),
            "latency_coverage": 1.0 - sums[:, _GUESSED] / hot,
            "size_bytes": sums[:, _SIZE] + FILE_BYTES,
            "peak_memory_bytes": peaks,
            "macs": sums[:, _MACS],
            "parameters": sums[:, _PARAMETERS],
        }


def _coarse(op: Op | None) -> object:
    """What of an operation may decide which kernels run, sizes left out."""
    if op is None:
        return None
    channels = op.shape[1] if len(op.shape) > 1 else 0
    groups = op.attribute("groups", 1)
    return (
        op.kind,
        op.inputs,
        op.is_integer_layer,
        bool(op.attribute("bias", 1)),
        _alignment(channels),
        _alignment(op.weight_shape[1]) if len(op.weight_shape) == 4 else None,
        groups != 1,
        sum(d != 1 for d in op.shape),
    )


def _clashes(codes: Ints, feature: Ints, payloads: Ints) -> int:
    """How many rows would still disagree with the first that is alike."""
    _, first, back = np.unique(
        codes * (int(feature.max()) + 1) + feature, return_index=True, return_inverse=True
    )
    return int((payloads[first][back] != payloads).sum())


def _alignment(channels: int) -> tuple[bool, bool, bool]:
    return channels < BLOCK, channels % BLOCK == 0, channels % ALIGNMENT == 0


def _most_wanted(picks: Sequence[Ints]) -> Ints:
    """The columns picked most often, a limited number of them."""
    if not picks:
        return np.zeros(0, dtype=np.int64)
    chosen, times = np.unique(np.concatenate(picks), return_counts=True)
    return chosen[np.argsort(-times, kind="stable")[:_ROUND]]


def _from_graph(space: SearchSpace) -> Operations:
    def operations(genome: Genome) -> Sequence[Op]:
        found: Sequence[Op] = space.graph.operations(space.decode(genome))  # type: ignore[attr-defined]
        return found

    return operations
