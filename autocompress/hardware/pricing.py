"""Prices genomes by the hundred thousand: what one candidate taught is looked up for the next.

In three steps, each learnt from candidates priced in full and checked by every further one:

1. a candidate's operations are composed from what few genes decide
   (:mod:`autocompress.hardware.slots`);
2. which kernels an operation becomes (its template) follows from itself and the precision around
   it;
3. the kernels follow from the template and the operation.

Which tensors are quantised and how much memory is live is computed, not learnt
(:mod:`autocompress.hardware.wiring`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.space import Genome, SearchSpace
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.influence import FeatureLookup, Ints
from autocompress.hardware.memory_model import USUAL
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.size import FILE_BYTES, op_bytes
from autocompress.hardware.slots import Numbers, Operations, Slot, Slots
from autocompress.hardware.wiring import Flags, Wiring, flags_of
from autocompress.measurement.kernels import KernelSignature

Floats: TypeAlias = npt.NDArray[np.float64]
#: A slot of one candidate: its kernels, and whether its result is stored as integers.
State: TypeAlias = tuple[bool, tuple[KernelSignature, ...]]

#: Columns of a state's price; the last is a maximum, not a sum.
_HOT, _CTX, _WEIGHTS, _ACTIVATIONS, _KERNELS, _GUESSED, _DOUBT, _ENERGY, _LARGEST = range(9)
_SUMMED = 8
#: Columns of a form's price.
_MACS, _PARAMETERS, _FLOAT_SIZE, _INTEGER_SIZE, _PACKED = range(5)
_CHUNK = 1 << 13
_ROUND = 64
_CONSIDERED = 16
_CHECKED = 32
_ABSENT: State = (False, ())


class CandidatePricer:
    """Latency, bytes, memory, energy, MACs and parameters of genomes, without building anything.

    Call it with genomes for a list of dictionaries, or use :meth:`arrays`. Answers are those of
    pricing one by one (:meth:`exact`) up to rounding. Not safe for several threads at once.

    Args:
        space: the search space; its ``graph.operations(candidate)`` describes candidates unless
            ``operations`` is given.
        predictor: prices kernels.
        operations: from a genome to its operations.
        packed: bytes that an operation adds to the entropy-coded file, and of the file without
            operations (None in place of the operation); without it, ``packed_bytes`` is not priced.
        seed: of the genomes from which the dependencies are first learnt.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: LatencyPredictor,
        *,
        operations: Operations | None = None,
        packed: Callable[[Op | None], float] | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.packed = packed
        self.predictor = predictor
        self._operations = operations or _from_graph(space)
        self._rng = np.random.default_rng(seed)
        sizes = np.asarray(space.sizes, dtype=np.int64)
        self._memory = predictor.profile.memory or USUAL
        self._energy = predictor.profile.energy
        counted = predictor.credit.counted

        def operations_as_priced(genome: Genome) -> Sequence[Op]:
            ops = self._operations(genome)
            return ops if packed is not None else [counted(op) for op in ops]

        self._slots = Slots(sizes, operations_as_priced, self._rng, counted=counted)
        self._states = Numbers(_ABSENT)
        self._state_prices = np.zeros((0, _LARGEST + 1))
        self._forget()

    def _forget(self) -> None:
        """Start anew with the kernels: places have moved."""
        self._generation = self._slots.generation
        count = len(self._slots)
        self._links: list[set[int]] = []
        self._templates = [Numbers(_template(_ABSENT)) for _ in range(count)]
        self._near: dict[int, list[int]] = {}
        self._template_of = [FeatureLookup(self._given(place)) for place in range(count)]
        self._state_of = [FeatureLookup([2 * count + place, place]) for place in range(count)]
        self._flags: list[Flags] = []
        self._form_prices: list[Floats] = [np.zeros((0, _PACKED + 1))] * count
        self._features_seen = np.zeros((3 * count, 0), dtype=np.int64)
        self._rows: list[tuple[Ints, Ints]] = []
        self._lowered: set[bytes] = set()

    @property
    def full_evaluations(self) -> int:
        """How many candidates' operations were asked of the space so far."""
        return self._slots.full

    @property
    def lowerings(self) -> int:
        """How many candidates were turned into kernels so far."""
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
        if not self._slots.full:
            self._slots.discover(self.space.original)
            while not self._slots.check(self._random(_CHECKED)):
                pass
        if len(genomes) >= _ROUND:  # a spot check: cheap, and it may show an overlooked gene
            self._slots.check(genomes[self._rng.integers(len(genomes), size=1)])
        parts = []
        for start in range(0, len(genomes), _CHUNK):
            columns = np.ascontiguousarray(genomes[start : start + _CHUNK].T)
            parts.append(self._price_chunk(columns))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def exact(self, genome: Genome) -> dict[str, float]:
        """The same for one genome, computed from its operations."""
        ops = list(self._operations(genome))
        quantized = quantized_tensors(ops)
        kernels = tuple(kernel for _, kernel in self.predictor.lower_by_op(ops, quantized))
        price = np.array(self._priced((False, kernels)))
        forms = np.array([self._form_price(op) for op in ops])
        counted, packed = forms[:, :_FLOAT_SIZE].sum(axis=0)[None], forms[:, _PACKED:].sum(axis=0)
        size = np.array([float(sum(op_bytes(op, quantized) for op in ops))])
        peak = np.array([float(self._memory.peak_bytes(ops, quantized))])
        metrics = self._metrics(
            price[None, :_SUMMED], price[_LARGEST:], counted, size, packed, peak
        )
        return {name: float(values[0]) for name, values in metrics.items()}

    def kernels(self, genomes: Sequence[Genome]) -> list[KernelSignature]:
        """The kernels of some genomes, the most frequent first: what is worth measuring."""
        counts: dict[str, int] = {}
        found: dict[str, KernelSignature] = {}
        for genome in genomes:
            for kernel in self.predictor.kernels(self._operations(genome)):
                counts[kernel.key] = counts.get(kernel.key, 0) + 1
                found[kernel.key] = kernel.dense
        return [found[key] for key in sorted(found, key=lambda k: (-counts[k], k))]

    def refresh(self) -> None:
        """Take over prices that changed since (more rows were measured, or a calibration)."""
        self._state_prices = np.zeros((0, _LARGEST + 1))

    def _random(self, count: int) -> Ints:
        return np.stack([self.space.sample(self._rng) for _ in range(count)])

    # -- one batch --------------------------------------------------------------------------------

    def _price_chunk(self, columns: Ints) -> dict[str, Floats]:
        while True:
            chosen = self._slots.forms(columns)
            if self._generation != self._slots.generation:
                self._forget()
            features, wiring, quantized = self._features(chosen)
            states, picks = self._find_states(features)
            if not picks.size:
                peaks = wiring.peak_memory(quantized, self._memory)
                return self._add_up(chosen, states, quantized, peaks)
            self._lower(chosen[:, picks], features[:, picks])

    def _features(self, chosen: Ints) -> tuple[Ints, Wiring, npt.NDArray[np.bool_]]:
        """Rows: each slot's kernel form; its class with its precision; room for templates."""
        slots = list(self._slots.slots.values())
        if not self._flags:
            self._flags = [self._flags_of(slot) for slot in slots]
        for place, slot in enumerate(slots):
            if len(self._flags[place].elements) < len(slot.ops):
                self._flags[place] = self._flags_of(slot)
        wiring = Wiring(self._flags, chosen)
        quantized = wiring.quantized()
        forms = np.stack([np.array(s.kernel_forms, dtype=np.int64)[chosen[s.place]] for s in slots])
        coarse = np.stack([np.array(s.coarse, dtype=np.int64)[chosen[s.place]] for s in slots])
        room = np.full_like(forms, -1)
        return np.vstack([forms, coarse * 2 + quantized, room]), wiring, quantized

    def _flags_of(self, slot: Slot) -> Flags:
        places = {name: other.place for name, other in self._slots.slots.items()}
        return flags_of(slot.ops, places)

    def _find_states(self, features: Ints) -> tuple[Ints, Ints]:
        """Each slot's state, and candidates that would teach those that are not known."""
        count = len(self._slots)
        states = np.empty((count, features.shape[1]), dtype=np.int64)
        picks: list[Ints] = []
        for place in range(count):
            codes = self._template_of[place].codes(features)
            templates = features[2 * count + place] = self._template_of[place].find(codes)
            second = self._state_of[place].codes(features)
            states[place] = self._state_of[place].find(second)
            lost = np.flatnonzero(states[place] < 0)
            if lost.size:
                mixed = np.where(templates[lost] < 0, -2 - codes[lost], second[lost])
                picks.append(lost[np.unique(mixed, return_index=True)[1]])
        return states, _most_wanted(picks)

    # -- learning what becomes of operations ------------------------------------------------------

    def _lower(self, chosen: Ints, features: Ints) -> None:
        """Turn some candidates (as columns) into kernels, and learn from them."""
        fresh = []
        for column in range(chosen.shape[1]):
            key = chosen[:, column].tobytes()
            if key not in self._lowered:
                self._lowered.add(key)
                self._rows.append(self._lower_one(self._slots.ops_of(chosen[:, column])))
                fresh.append(column)
        if not fresh:
            raise RuntimeError("a candidate's kernels cannot be learnt")
        count, start = len(self._slots), self._features_seen.shape[1]
        features = features[:, fresh]
        features[2 * count :] = np.stack([row[0] for row in self._rows[start:]], axis=1)
        new = np.stack([row[1] for row in self._rows[start:]], axis=1)
        seen = self._features_seen = np.hstack([self._features_seen, features])
        states = np.stack([row[1] for row in self._rows], axis=1)
        for place in range(count):
            first, second = self._template_of[place], self._state_of[place]
            templates = features[2 * count + place]
            fits = start and first.extend(features, templates)
            if not (fits and second.extend(features, new[place])):
                self._relearn(place, first, seen, seen[2 * count + place], kernels=False)
                self._relearn(place, second, seen, states[place], kernels=True)

    def _lower_one(self, ops: Sequence[Op]) -> tuple[Ints, Ints]:
        quantized = quantized_tensors(ops)
        kernels: dict[str, list[KernelSignature]] = {}
        for name, kernel in self.predictor.lower_by_op(ops, quantized):
            kernels.setdefault(name, []).append(kernel)
        present = {op.name for op in ops}
        templates = np.zeros(len(self._slots), dtype=np.int64)
        states = np.zeros(len(self._slots), dtype=np.int64)
        for place, name in enumerate(self._slots.slots):
            if name in present:
                state: State = (name in quantized, tuple(kernels.get(name, ())))
                templates[place] = self._templates[place][_template(state)]
                states[place] = self._states[state]
        return templates, states

    def _relearn(
        self, place: int, lookup: FeatureLookup, matrix: Ints, payloads: Ints, *, kernels: bool
    ) -> None:
        """Let operations around the slot join in until nothing clashes, then drop what is idle."""
        grown, count = False, len(self._slots)
        while (clash := lookup.learn(matrix, payloads)) is not None:
            # what an operation became says most; then its class; its sizes only where they count
            near = self._nearest(place)
            order = [[2 * count + p, count + p] if p < place else [count + p] for p in near]
            features = [feature for pair in order for feature in pair]
            differ = [f for f in features if matrix[f, clash[0]] != matrix[f, clash[1]]]
            if kernels and not differ:
                differ = [f for f in near if matrix[f, clash[0]] != matrix[f, clash[1]]]
            differ = differ[:_CONSIDERED]
            if not differ:
                name = list(self._slots.slots)[place]
                raise RuntimeError(f"operation {name!r} has two prices in one candidate")
            codes = lookup.codes(matrix)
            gains = [_gain(codes, matrix[feature], payloads) for feature in differ]
            lookup.features.append(differ[int(np.argmax(gains))])
            grown = True
        if grown:
            lookup.thin_out(matrix, payloads)

    def _given(self, place: int) -> list[int]:
        """Features that count from the start: the class, and what became of those before it."""
        count = len(self._slots)
        before = sorted(p for p in self._around(place) if p < place)
        after = sorted(p for p in self._around(place) if p > place)
        return [count + place, *(2 * count + p for p in before), *(count + p for p in after)]

    def _nearest(self, place: int) -> list[int]:
        """Places of all slots, nearest first in the graph of everything that was ever connected."""
        if place not in self._near:
            seen, queue = {place: None}, deque([place])
            while queue:
                for other in sorted(self._around(queue.popleft())):
                    if other not in seen:
                        seen[other] = None
                        queue.append(other)
            everything = range(len(self._slots))
            self._near[place] = [*seen, *(p for p in everything if p not in seen)]
        return self._near[place]

    def _around(self, place: int) -> set[int]:
        """Places of the slots that this one was ever connected with."""
        if not self._links:
            self._links = [set() for _ in range(len(self._slots))]
            for slot in self._slots.slots.values():
                for op in slot.ops:
                    for name in () if op is None else op.inputs:
                        other = self._slots.slots[name].place
                        self._links[slot.place].add(other)
                        self._links[other].add(slot.place)
        return self._links[place]

    # -- adding up --------------------------------------------------------------------------------

    def _priced(self, state: State) -> list[float]:
        kernels = state[1]
        prices = [self.predictor.price(kernel) for kernel in kernels]
        return [
            sum(p.hot_us for p in prices),
            sum(p.ctx_us for p in prices),
            sum(k.weight_bytes for k in kernels),
            sum(k.activation_bytes for k in kernels),
            len(prices),
            sum(p.hot_us for p in prices if not p.measured),
            sum(p.hot_us * p.error for p in prices),
            sum(self._energy.kernel_mj(k) for k in kernels) if self._energy else 0.0,
            max((k.largest_activation_bytes for k in kernels), default=0),
        ]

    def _prices_of_forms(self, slot: Slot) -> Floats:
        known = self._form_prices[slot.place]
        if len(known) < len(slot.ops):
            new = [self._form_price(op) for op in slot.ops[len(known) :]]
            known = np.concatenate([known, np.array(new, dtype=np.float64)])
            self._form_prices[slot.place] = known
        return known

    def _form_price(self, op: Op | None) -> list[float]:
        if op is None:
            return [0.0] * (_PACKED + 1)
        plain, integer = (op_bytes(op, names) for names in ((), (op.name,)))
        packed = 0.0 if self.packed is None else self.packed(op)
        return [op.macs, op.parameters, plain, integer, packed]

    def _add_up(
        self, chosen: Ints, states: Ints, quantized: npt.NDArray[np.bool_], peaks: Floats
    ) -> dict[str, Floats]:
        if len(self._state_prices) < len(self._states):
            new = [self._priced(s) for s in self._states.things[len(self._state_prices) :]]
            self._state_prices = np.concatenate([self._state_prices, np.array(new)])
        summed = np.ascontiguousarray(self._state_prices[:, :_SUMMED])
        largest = np.ascontiguousarray(self._state_prices[:, _LARGEST])
        count = states.shape[1]
        totals, tops = np.zeros((count, _SUMMED)), np.zeros(count)
        counted, sizes, packed = np.zeros((count, 2)), np.zeros(count), np.zeros(count)
        rows, room = np.empty((count, _SUMMED)), np.empty(count)
        for place, slot in enumerate(self._slots.slots.values()):
            row, forms = states[place], chosen[place]
            # a known mode lets numpy write into the room without a copy
            totals += np.take(summed, row, axis=0, out=rows, mode="clip")
            np.maximum(tops, np.take(largest, row, out=room, mode="clip"), out=tops)
            prices = self._prices_of_forms(slot)
            if prices[:, _MACS].any() or prices[:, _PARAMETERS].any():
                counted += prices[forms, :_FLOAT_SIZE]
            if self.packed is not None:
                packed += prices[forms, _PACKED]
            sizes += np.where(
                quantized[place], prices[forms, _INTEGER_SIZE], prices[forms, _FLOAT_SIZE]
            )
        return self._metrics(totals, tops, counted, sizes, packed, peaks)

    def _metrics(
        self,
        sums: Floats,
        largest: Floats,
        counted: Floats,
        sizes: Floats,
        packed: Floats,
        peaks: Floats,
    ) -> dict[str, Floats]:
        predictor = self.predictor
        row = np.column_stack([sums[:, :_GUESSED], largest])
        latency = predictor.calibration.total_us(row, predictor.profile.runtime.run_us) / 1e3
        hot = np.maximum(sums[:, _HOT], 1e-9)
        error = np.hypot(max(predictor.validation.p90, 0.03), sums[:, _DOUBT] / hot)
        found = {
            "latency_ms": latency,
            "latency_low_ms": latency / (1.0 + error),
            "latency_high_ms": latency * (1.0 + error),
            "latency_coverage": 1.0 - sums[:, _GUESSED] / hot,
            "size_bytes": sizes + FILE_BYTES,
            "peak_memory_bytes": peaks,
            "macs": counted[:, _MACS],
            "parameters": counted[:, _PARAMETERS],
        }
        if self.packed is not None:
            found["packed_bytes"] = packed + self.packed(None)
        if self._energy is not None:
            found["energy_mj"] = sums[:, _ENERGY] + self._energy.active_mw * latency / 1e3
        return found


def _template(state: State) -> tuple[object, ...]:
    """The kernels without their sizes, and whether the result is stored as integers."""
    integer, kernels = state
    return integer, *(
        (
            k.op,
            tuple(None if t is None else (t.dtype, t.constant, len(t.shape)) for t in k.inputs),
            tuple(pair for pair in k.attributes if pair[0] in {"activation", "perm"}),
        )
        for k in kernels
    )


def _gain(codes: Ints, feature: Ints, payloads: Ints) -> float:
    """How many disagreements a feature settles, for each group that it adds."""
    before, groups = _disagreeing(codes, payloads)
    after, more = _disagreeing(codes * (int(feature.max()) + 1) + feature, payloads)
    return (before - after) / (more - groups + 1)


def _disagreeing(codes: Ints, payloads: Ints) -> tuple[int, int]:
    """Rows that disagree with the first that is alike, and groups of rows that are alike."""
    _, first, back = np.unique(codes, return_index=True, return_inverse=True)
    return int((payloads[first][back] != payloads).sum()), len(first)


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
