"""The operations of every candidate of a space, composed from what few genes decide.

Each name among the operations is a *slot*. What an operation is like falls into fields (kind,
inputs, each dimension of its shapes, bits …), and each field follows from few genes. They are
learnt from candidates whose operations are known; the operations of all others are composed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.space import Genome
from autocompress.graph.ops import Op
from autocompress.hardware.influence import Codes, GeneLookup, Ints
from autocompress.hardware.lowerings.onnxruntime_cpu.blocked_layout import ALIGNMENT, BLOCK

Operations: TypeAlias = Callable[[Genome], Sequence[Op]]

#: Fields of a shape; what a tensor has more dimensions, lies in the last of them together.
_DIMENSIONS = 5
#: Fields of an operation besides its shapes.
_PLAIN_FIELDS = 9


class Numbers:
    """Numbers things in the order of their first appearance; ``first`` is number 0."""

    def __init__(self, first: object) -> None:
        self.things: list[Any] = [first]
        self._of: dict[object, int] = {first: 0}

    def __getitem__(self, thing: object) -> int:
        found = self._of.setdefault(thing, len(self.things))
        if found == len(self.things):
            self.things.append(thing)
        return found

    def __len__(self) -> int:
        return len(self.things)


class _Field:
    """One property of a slot's operation: which genes decide it."""

    def __init__(self, sizes: Ints) -> None:
        self.lookup = GeneLookup(sizes)
        self.values = Numbers(None)


class _Columns:
    """A matrix that grows by columns."""

    def __init__(self, height: int, dtype: npt.DTypeLike) -> None:
        self._room: npt.NDArray[Any] = np.zeros((height, 0), dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, columns: npt.NDArray[Any]) -> None:
        """Add columns, shape ``(height, n)``."""
        count = self._count + columns.shape[1]
        if count > self._room.shape[1]:
            room = np.zeros((len(self._room), count + count // 4 + 1), dtype=self._room.dtype)
            room[:, : self._count] = self.known
            self._room = room
        self._room[:, self._count : count] = columns
        self._count = count

    @property
    def known(self) -> npt.NDArray[Any]:
        """All columns so far; later ones do not show in it."""
        return self._room[:, : self._count]


class _Joint:
    """Forms by everything that decides any field of a slot."""

    def __init__(self, lookups: Sequence[GeneLookup], sizes: Ints) -> None:
        genes = sorted({gene for lookup in lookups for gene in lookup.genes})
        self._strides: list[tuple[int, Ints]] = []
        span = 1
        for gene in genes:
            rows = np.stack([lookup.alike(gene) for lookup in lookups])
            classes = np.unique(rows, axis=1, return_inverse=True)[1].reshape(int(sizes[gene]))
            self._strides.append((gene, classes.astype(np.int64) * span))
            span *= int(classes.max()) + 1
        self._codes = Codes()

    def codes(self, columns: Ints) -> Ints:
        """A number per genome, given genes as rows."""
        codes = np.zeros(columns.shape[1], dtype=np.int64)
        for gene, stride in self._strides:
            codes += stride[columns[gene]]
        return codes

    def find(self, codes: Ints) -> Ints:
        """Forms of codes; -1 where one is not known."""
        return self._codes.find(codes)

    def add(self, codes: Ints, forms: Ints) -> None:
        """Remember forms."""
        self._codes.extend(codes, forms)


def _split(op: Op | None) -> tuple[object, ...]:
    """The fields of an operation; None stands for what it lacks."""
    if op is None:
        return (None,) * (_PLAIN_FIELDS + 2 * _DIMENSIONS)
    return (
        op.kind,
        op.inputs,
        op.layer,
        op.attributes,
        op.weight_bits,
        op.activation_bits,
        op.codebook,
        op.sparsity,
        op.pattern,
        *_sizes(op.shape),
        *_sizes(op.weight_shape),
    )


def _sizes(shape: tuple[int, ...]) -> tuple[object, ...]:
    """A shape as so many fields."""
    if len(shape) > _DIMENSIONS:
        return (*shape[: _DIMENSIONS - 1], shape[_DIMENSIONS - 1 :])
    return (*shape, *[None] * (_DIMENSIONS - len(shape)))


def _shape(sizes: Sequence[Any]) -> tuple[int, ...]:
    """The shape of such fields."""
    *first, last = sizes
    rest = last if isinstance(last, tuple) else (last,)
    return tuple(n for n in (*first, *rest) if n is not None)


def _join(name: str, fields: Sequence[Any]) -> Op | None:
    kind, inputs, layer, attributes, *coded = fields[:_PLAIN_FIELDS]
    if kind is None:
        return None
    sizes = fields[_PLAIN_FIELDS:]
    shape, weight = sizes[:_DIMENSIONS], sizes[_DIMENSIONS:]
    return Op(
        name,
        kind,
        inputs,
        _shape(shape),
        layer=layer,
        attributes=attributes,
        weight_shape=_shape(weight),
        weight_bits=coded[0],
        activation_bits=coded[1],
        codebook=coded[2],
        sparsity=coded[3],
        pattern=coded[4],
    )


def _inserted(order: list[str], names: Sequence[str]) -> list[str]:
    """``order`` with each of ``names`` that it lacks behind the one before it."""
    lacking = set(names).difference(order)
    if not lacking:
        return order
    found, at = list(order), 0
    for name in names:
        if name in lacking:
            found.insert(at, name)
            at += 1
        else:
            at = found.index(name) + 1
    return found


def _sorted(order: Sequence[str], after: Mapping[str, Collection[str]]) -> list[str]:
    """The topological order that is nearest to ``order`` (Kahn 1962, doi:10.1145/368996.369025).

    Args:
        order: all names.
        after: for each name, those that come later.

    Raises:
        RuntimeError: there is none, since candidates disagree.
    """
    waiting = Counter(name for names in after.values() for name in names)
    place = {name: i for i, name in enumerate(order)}
    ready = [i for name, i in place.items() if not waiting[name]]
    heapify(ready)
    found: list[str] = []
    while ready:
        found.append(order[heappop(ready)])
        for name in after.get(found[-1], ()):
            waiting[name] -= 1
            if not waiting[name]:
                heappush(ready, place[name])
    if len(found) < len(order):
        left = sorted(set(order).difference(found), key=place.__getitem__)
        raise RuntimeError(f"candidates execute {', '.join(left)} in different orders")
    return found


@dataclass(eq=False)
class Slot:
    """An operation by name, and every form of it that was met.

    Attributes:
        name: the operation's name.
        place: its place in the execution order.
        fields: what decides its fields.
        ops: its forms; number 0 is "absent".
        kernel_forms: for each form, the number of what decides its kernels (not its exact bits).
        coarse: for each form, the number of its class without sizes.
        counted: an operation with those zeros alone that decide its kernels.
    """

    name: str
    place: int
    fields: list[_Field]
    counted: Callable[[Op], Op]
    ops: list[Op | None] = field(default_factory=lambda: [None])
    kernel_forms: list[int] = field(default_factory=lambda: [0])
    coarse: list[int] = field(default_factory=lambda: [0])
    joint: _Joint | None = None
    _numbers: dict[Op | None, int] = field(default_factory=lambda: {None: 0})
    _composed: dict[tuple[int, ...], int] = field(default_factory=dict)
    _forms: Numbers = field(default_factory=lambda: Numbers(None))
    _classes: Numbers = field(default_factory=lambda: Numbers(None))

    def number(self, op: Op | None) -> int:
        """The number of a form."""
        if op not in self._numbers:
            self._numbers[op] = len(self.ops)
            self.ops.append(op)
            self.kernel_forms.append(self._forms[self._kernel_form(op)])
            self.coarse.append(self._classes[_coarse(op)])
        return self._numbers[op]

    def compose(self, codes: tuple[int, ...]) -> int:
        """The number of the form with these field values."""
        if codes not in self._composed:
            values = [f.values.things[c] for f, c in zip(self.fields, codes, strict=True)]
            self._composed[codes] = self.number(_join(self.name, values))
        return self._composed[codes]

    def _kernel_form(self, op: Op | None) -> object:
        if op is None:
            return None
        bits = 8 if op.is_integer_layer else 32
        stored, codebook = _table_of(op)
        attributes = tuple(pair for pair in op.attributes if pair[0] != "scaled")
        return replace(
            self.counted(op), weight_bits=min(bits, stored), activation_bits=bits, layer=None,
            codebook=codebook, attributes=attributes,
        )  # fmt: skip


def _coarse(op: Op | None) -> object:
    """What of an operation may decide which kernels run, sizes left out."""
    if op is None:
        return None
    channels = op.shape[1] if len(op.shape) > 1 else 0
    return (
        op.kind,
        op.inputs,
        op.is_integer_layer,
        _table_of(op),
        bool(op.attribute("bias", 1)),
        _alignment(channels),
        _alignment(op.weight_shape[1]) if len(op.weight_shape) == 4 else None,
        op.attribute("groups", 1) != 1,
        sum(d != 1 for d in op.shape),
    )


def _table_of(op: Op) -> tuple[int, int]:
    """Bits and shared values in which rows are looked up: no kernel of other layers sees them."""
    if op.kind != "embedding":
        return 32, 0
    return (op.weight_bits if op.weight_bits >= 16 else 8), op.codebook


def _alignment(channels: int) -> tuple[bool, bool, bool]:
    return channels < BLOCK, channels % BLOCK == 0, channels % ALIGNMENT == 0


class Slots:
    """All slots of a space.

    Args:
        sizes: number of options per gene.
        operations: from a genome to its operations.
        rng: for the genomes that are tried.
        counted: an operation with those zeros alone that decide its kernels.
    """

    def __init__(
        self,
        sizes: Ints,
        operations: Operations,
        rng: np.random.Generator,
        *,
        counted: Callable[[Op], Op],
    ) -> None:
        self._counted = counted
        self._sizes = sizes
        self._operations = operations
        self._rng = rng
        self.slots: dict[str, Slot] = {}
        self.generation = 0
        self._genomes = _Columns(len(sizes), np.int64)
        self._rows: list[dict[str, tuple[int, ...]]] = []
        self._tables: dict[str, _Columns] = {}
        self._seen: dict[bytes, int] = {}
        self._after: dict[str, set[str]] = {}
        self._in_order = True
        self._learnt = 0

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def full(self) -> int:
        """How many candidates' operations were asked for."""
        return len(self._rows)

    def discover(self, original: Genome) -> None:
        """Vary every gene by itself, around ``original`` and around a random genome."""
        for base in (original, self._rng.integers(0, self._sizes)):
            start = np.asarray(base, dtype=np.int64)
            self._know(start)
            for gene, count in enumerate(self._sizes):
                rows = []
                for option in range(int(count)):
                    genome = start.copy()
                    genome[gene] = option
                    rows.append(self._know(genome))
                self._observe(gene, rows)
        self.learn()

    def check(self, genomes: Ints) -> bool:
        """Whether the operations of these genomes (as rows) are composed as they really are."""
        self._in_order = True
        start = len(self._rows)
        for genome in genomes:
            self._know(genome)
        agrees = self._in_order and self._agrees(start)
        self.learn()
        return agrees

    def ops_of(self, forms: Ints) -> list[Op]:
        """The operations of one candidate from the numbers of its forms."""
        found = (slot.ops[number] for slot, number in zip(self.slots.values(), forms, strict=True))
        return [op for op in found if op is not None]

    def forms(self, columns: Ints) -> Ints:
        """Numbers of the forms, shape ``(slots, n)``, given genes as rows, shape ``(genes, n)``."""
        chosen = np.empty((len(self.slots), columns.shape[1]), dtype=np.int64)
        while True:
            generation = self.generation
            lost: list[int] = []
            for slot in self.slots.values():
                lost += self._fill(slot, columns, chosen)
            if not lost and generation == self.generation:
                return chosen
            for column in dict.fromkeys(lost):
                self._know(columns[:, column])
            self.learn()
            if generation != self.generation:
                chosen = np.empty((len(self.slots), columns.shape[1]), dtype=np.int64)

    def _fill(self, slot: Slot, columns: Ints, chosen: Ints) -> list[int]:
        """Find one slot's forms; columns that would teach what is not known."""
        if slot.joint is None:
            slot.joint = _Joint([one.lookup for one in slot.fields], self._sizes)
        codes = slot.joint.codes(columns)
        numbers = slot.joint.find(codes)
        unknown = np.flatnonzero(numbers < 0)
        if unknown.size:
            first = np.unique(codes[unknown], return_index=True)[1]
            lost = self._compose(slot, columns, codes, unknown[first])
            if lost:
                return lost
            numbers = slot.joint.find(codes)
        chosen[slot.place] = numbers
        return []

    def _compose(self, slot: Slot, columns: Ints, codes: Ints, picks: Ints) -> list[int]:
        """Compose the forms of some columns; those whose fields are not all known."""
        some = columns[:, picks]
        fields = np.stack([one.lookup.find(one.lookup.codes(some)) for one in slot.fields])
        lost = np.flatnonzero((fields < 0).any(axis=0))
        if lost.size:
            return picks[lost].tolist()  # type: ignore[no-any-return]
        numbers = np.array([slot.compose(tuple(column)) for column in fields.T.tolist()])
        if slot.joint is not None:
            slot.joint.add(codes[picks], numbers)
        return []

    # -- learning ---------------------------------------------------------------------------------

    def _know(self, genome: npt.NDArray[np.int64]) -> int:
        """Ask for a genome's operations, once; returns its row."""
        genome = np.ascontiguousarray(genome, dtype=np.int64)
        key = genome.tobytes()
        if key in self._seen:
            return self._seen[key]
        ops = self._operations(genome)
        self._in_order &= self._place(ops)
        row = {}
        for op in ops:
            slot = self.slots[op.name]
            values = _split(op)
            row[op.name] = tuple(f.values[v] for f, v in zip(slot.fields, values, strict=True))
        self._seen[key] = len(self._rows)
        self._genomes.append(genome[:, None])
        self._rows.append(row)
        return self._seen[key]

    def _place(self, ops: Sequence[Op]) -> bool:
        """Give every operation a slot; False where the slots were in another order than these.

        What comes directly before what is kept of every candidate, and the order of the slots is
        kept true to all of it: two operations that never met in one candidate may have been placed
        either way.
        """
        names = [op.name for op in ops]
        for before, after in pairwise(names):
            self._after.setdefault(before, set()).add(after)
        order = _inserted(list(self.slots), names)
        places = {name: place for place, name in enumerate(order)}
        fits = all(places[before] < places[after] for before, after in pairwise(names))
        if not fits:
            order = _sorted(order, self._after)
        if order == list(self.slots):
            return fits
        if len(order) > len(self.slots):
            self._learnt = 0  # nothing is known yet of the fields of new slots
        width = len(_split(None))
        for name in order:
            if name not in self.slots:
                self.slots[name] = Slot(
                    name, 0, [_Field(self._sizes) for _ in range(width)], self._counted
                )
        self.slots = {name: self.slots[name] for name in order}
        for place, slot in enumerate(self.slots.values()):
            slot.place = place
        self.generation += 1
        return fits

    def _table(self, name: str) -> npt.NDArray[np.int32]:
        """The fields of a slot in every known candidate, shape ``(fields, candidates)``."""
        absent = (0,) * len(self.slots[name].fields)
        table = self._tables.setdefault(name, _Columns(len(absent), np.int32))
        if len(table) < len(self._rows):
            new = [row.get(name, absent) for row in self._rows[len(table) :]]
            table.append(np.array(new).T)
        return table.known

    def _observe(self, gene: int, rows: Sequence[int]) -> None:
        for name, slot in self.slots.items():
            slot.joint = None
            values = self._table(name)[:, rows]
            for part in np.flatnonzero((values != values[:, :1]).any(axis=1)):
                slot.fields[part].lookup.observe(gene, values[part].tolist())

    def _agrees(self, start: int) -> bool:
        """Whether candidates from ``start`` on are as what was learnt before them says."""
        if start == len(self._rows):
            return True
        columns = self._genomes.known[:, start:]
        for name, slot in self.slots.items():
            for one, values in zip(slot.fields, self._table(name)[:, start:], strict=True):
                found = one.lookup.find(one.lookup.codes(columns))
                if ((found >= 0) & (found != values)).any():
                    return False
        return True

    def learn(self) -> None:
        """Bring every field up to date with all known candidates."""
        while self._learnt < len(self._rows):
            start, self._learnt = self._learnt, len(self._rows)
            columns = self._genomes.known[:, start:]
            for name, slot in list(self.slots.items()):
                for part, one in enumerate(slot.fields):
                    values = self._table(name)[part, start : start + columns.shape[1]]
                    if not (start and one.lookup.extend(columns, values.astype(np.int64))):
                        self._relearn(name, part, one)

    def _relearn(self, name: str, part: int, one: _Field) -> None:
        self.slots[name].joint = None
        while True:
            values = self._table(name)[part].astype(np.int64)
            clash = one.lookup.learn(self._genomes.known, values)
            if clash is None:
                return
            self._separate(name, part, one, clash)

    def _separate(self, name: str, part: int, one: _Field, clash: tuple[int, int]) -> None:
        """Find the gene that two genomes differ in and that was thought not to matter."""
        first, other = self._genomes.known[:, clash].T
        differing = np.flatnonzero(first != other)
        absent = (0,) * len(self.slots[name].fields)

        def known(row: int) -> int:
            return self._rows[row].get(name, absent)[part]

        def value(flipped: int) -> int:
            """The field when the first so many differing genes are as in ``other``."""
            genome = first.copy()
            genome[differing[:flipped]] = other[differing[:flipped]]
            return known(self._know(genome))

        # alike genomes differ only in genes thought not to matter: one of them changes the field
        low, high, start = 0, len(differing), known(clash[0])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if value(middle) == start else (low, middle)
        if not one.lookup.separate(int(differing[high - 1])):
            raise RuntimeError(f"operation {name!r} differs between two equal genomes")
