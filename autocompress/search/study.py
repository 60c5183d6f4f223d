"""The search loop: propose, price, evaluate, store, tell; the same trials for the same seed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, TypeAlias

import numpy as np

from autocompress.core.budget import Fidelity
from autocompress.core.objective import Constraint, Objective
from autocompress.core.pareto import ParetoArchive
from autocompress.core.space import Genome, SearchSpace
from autocompress.core.trial import Evaluation, TrialRecord
from autocompress.errors import RequestError, StorageError
from autocompress.search.executors.base import MAX_ATTEMPTS, Executor
from autocompress.search.failures import all_failed
from autocompress.search.judge import Judge
from autocompress.search.pricing import Price, Pricer
from autocompress.search.proposals import DUPLICATE, Proposer, genome_key
from autocompress.search.store import TrialStore
from autocompress.search.strategies.base import Outcome
from autocompress.search.strategies.registry import make_strategy

#: Why a run ended: enough trials, time over, asked to stop, nothing new left to try.
Ending: TypeAlias = Literal["trials", "deadline", "stopped", "exhausted"]

#: Seeds of a run: genomes, by name or not.
Seeds: TypeAlias = Sequence[Genome] | Mapping[str, Genome]

#: Origins of trials that :meth:`Study.evaluate` was told to run start with this.
CHOSEN = "chosen:"

#: Origins of seeds start with this.
SEED = "seed:"

_log = logging.getLogger(__name__)
_WAIT_SECONDS = 1.0


@dataclass(slots=True)
class _Item:
    """A trial between proposal and end."""

    index: int
    genome: Genome
    origin: str
    stored: TrialRecord | None = None
    number: int | None = None
    attempts: int = 1
    evaluation: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class _Limits:
    """When no further trial is started."""

    max_trials: int | None = None
    deadline: float | None = None
    should_stop: Callable[[], bool] | None = None

    def reached(self) -> Ending | None:
        if self.should_stop is not None and self.should_stop():
            return "stopped"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "deadline"
        return None


class Study:
    """One search: a strategy, an executor and a store brought together.

    **Order.** At most ``in_flight`` trials are between proposal and end. They are proposed,
    finished, stored and told in the order of their numbers, whatever comes back first: proposal i
    is made after trial i - in_flight was told and before the next one is. Trials hence depend on
    the seed and ``in_flight`` only, not on timing.

    **Resuming.** Make the study again over the same store, with the same arguments, and make the
    same calls. Stored trials are proposed and told again without being evaluated, which brings
    the strategy into the state it was in; what follows equals an undisturbed run. Should a
    proposal differ from what is stored (another version, a re-measured table), the store is right.

    **What is known before.** Trials of :meth:`evaluate` that are in the store before any trial of
    the search count as its knowledge where they are of the fidelity that the first :meth:`run`
    searches at: the strategy is told them first, and they are not evaluated again.

    **What counts.** A trial counts once it is in the store. What was in flight when the driver
    died is evaluated again, at most twice; then it is a failed trial.

    One writer: the caller holds the run folder's lock, owns store and executor and closes them.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Objective],
        price: Price,
        executor: Executor,
        store: TrialStore,
        constraints: Sequence[Constraint] = (),
        strategy: Any = "auto",
        seed: int = 0,
        in_flight: int | None = None,
        reference: Mapping[str, float] | None = None,
        fail_after: int = 8,
    ) -> None:
        """Bring a study together, or back.

        Args:
            space: what is searched.
            objectives: two to four.
            price: priced metrics of many genomes at once; unknown ones left out or NaN.
            executor: where trials run.
            store: where finished trials are; those in it are taken up again.
            constraints: bounds. Priced ones hold before anything is evaluated; the others are
                told to the strategy as violations.
            strategy: a name, a factory or an Optuna sampler, see ``make_strategy``.
            seed: decides everything random.
            in_flight: proposed and unfinished trials; None: one for one slot, else two a slot.
            reference: the baseline's metrics; "accuracy" makes accuracy_drop known.
            fail_after: when so many trials have finished and every one failed, give up.

        Raises:
            RequestError: the strategy or a constraint is unknown.
            StorageError: the store cannot be read.
        """
        if in_flight is not None and in_flight < 1:
            raise RequestError(f"in_flight is {in_flight!r}; use at least 1, or None")
        self.space = space
        self.seed = int(seed)
        self._judge = Judge(objectives, constraints, reference or {})
        self._pricer = Pricer(price, constraints)
        self._executor = executor
        self._store = store
        self._fail_after = fail_after
        self._in_flight = in_flight or (1 if executor.slots == 1 else 2 * executor.slots)
        self.strategy = make_strategy(
            strategy, space, objectives=self._judge.objectives, seed=self.seed
        )
        self._proposer = Proposer(space, self.strategy, self._pricer, seed=self.seed)
        self._trials = store.records()
        self._archives: dict[Fidelity, ParetoArchive[int]] = {}
        for record in self._trials:
            self._archive(record)
        self._stored = deque(r for r in self._trials if not r.origin.startswith(CHOSEN))
        self._fidelity = self._stored[-1].fidelity if self._stored else Fidelity.TABLE
        self._window: deque[_Item] = deque()
        self._seeds: deque[tuple[str, Genome]] = deque()
        self._seen_at: set[tuple[bytes, Fidelity]] = set()
        self._asked = 0  # proposals so far: the next one's index
        self._complete = self._told = 0
        self._exhausted = self._learnt = False

    # -- what there is ---------------------------------------------------------------------------

    @property
    def trials(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        return list(self._trials)

    @property
    def rejected(self) -> dict[str, int]:
        """Proposals that were turned down before any evaluation: how many, by reason."""
        return dict(self._proposer.rejected)

    @property
    def repaired(self) -> int:
        """Proposals that were changed to meet the priced constraints."""
        return self._proposer.repaired

    def feasible(self, record: TrialRecord) -> bool:
        """Whether a trial is complete and meets every constraint."""
        return self._judge.feasible(record)

    def front(self, fidelity: Fidelity | None = None) -> list[TrialRecord]:
        """Complete, feasible, non-dominated trials of one fidelity, by number.

        Args:
            fidelity: trials are compared within it only; None: that of the latest run.
        """
        archive = self._archives.get(self._fidelity if fidelity is None else fidelity)
        return [] if archive is None else [self._trials[n] for n in sorted(archive.keys)]

    def hypervolume(self, reference: Sequence[float], fidelity: Fidelity | None = None) -> float:
        """Exact hypervolume of :meth:`front`.

        Args:
            reference: the worst point that counts, in losses (maximised metrics negated).
            fidelity: as in :meth:`front`.
        """
        archive = self._archives.get(self._fidelity if fidelity is None else fidelity)
        return 0.0 if archive is None else archive.hypervolume(reference)

    # -- the search ------------------------------------------------------------------------------

    def run(
        self,
        fidelity: Fidelity,
        *,
        max_trials: int | None = None,
        deadline: float | None = None,
        seeds: Seeds = (),
        on_trial: Callable[[TrialRecord], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Ending:
        """Search until a limit is reached; trials that have begun are finished and stored.

        Args:
            fidelity: effort spent on each trial.
            max_trials: finished trials of this study in all, those stored before and those of
                earlier runs included (trials of :meth:`evaluate` are not).
            deadline: value of ``time.monotonic()`` after which no trial is started.
            seeds: evaluated before anything the strategy proposes. Infeasible ones are repaired,
                duplicates left out.
            on_trial: called with each trial finished now, not with stored ones.
            should_stop: asked before each trial whether to stop.

        Returns:
            Why it ended.

        Raises:
            NoFeasibleCandidateError: nothing meets the priced constraints.
            AutocompressError: all of the first trials failed.
            RequestError: no limit was given, or a seed is no genome of the space.
        """
        if max_trials is None and deadline is None and should_stop is None:
            raise RequestError("nothing ends this run; set max_trials, deadline or should_stop")
        self._fidelity = fidelity
        self._proposer.hold_recipes(not fidelity.trains)
        self._learn(fidelity)
        self._queue_seeds(seeds, fidelity)
        limits = _Limits(max_trials, deadline, should_stop)
        try:
            return self._search(fidelity, limits, on_trial)
        except BaseException:
            self._abandon(self._window)
            raise

    def _search(
        self,
        fidelity: Fidelity,
        limits: _Limits,
        on_trial: Callable[[TrialRecord], None] | None,
    ) -> Ending:
        while True:
            ending = limits.reached()
            wanted = limits.max_trials
            if not self._window and (
                ending or (wanted is not None and self._asked >= wanted) or self._ended(fidelity)
            ):
                return ending or "trials"
            while len(self._window) < self._in_flight and not self._exhausted:
                self._propose()
            if not self._window:
                return "exhausted"
            if ending is None:
                self._submit(self._window, fidelity, wanted)
            head = self._window[0]
            if head.stored is not None and head.stored.fidelity == fidelity and ending is None:
                if wanted is not None and head.index >= wanted:
                    return "trials"
                self._window.popleft()
                self._tell(head.index, head.stored)
            elif head.number is None:
                return ending or "trials"
            elif head.evaluation is None:
                self._collect(self._window)
            else:
                record = self._finish(head, fidelity)
                self._window.popleft()
                self._tell(head.index, record)
                if on_trial is not None:
                    on_trial(record)
                self._check_any_complete()

    def _ended(self, fidelity: Fidelity) -> bool:
        """Whether the store shows that this run had ended and one at another fidelity followed."""
        return bool(self._stored) and self._stored[0].fidelity != fidelity

    def _propose(self) -> None:
        index = self._asked
        item = self._next_seed(index)
        if item is None:
            genome = self._proposer.next(index)
            if genome is None:
                self._exhausted = True
                return
            item = _Item(index, genome, self.strategy.name)
        if self._stored:
            self._take_up(item, self._stored.popleft())
        self._asked += 1
        self._window.append(item)

    def _learn(self, fidelity: Fidelity) -> None:
        """Tell the strategy, once, of chosen trials at ``fidelity`` from before the search."""
        if self._learnt:
            return
        self._learnt = True
        before = list(takewhile(lambda r: r.origin.startswith(CHOSEN), self._trials))
        for record in before:
            if record.fidelity == fidelity:
                self._proposer.seen.add(genome_key(np.array(record.genome, dtype=np.int64)))
                self._inform(record.number - len(before), record)

    def _queue_seeds(self, seeds: Seeds, fidelity: Fidelity) -> None:
        named: Iterable[tuple[str, Genome]]
        named = seeds.items() if isinstance(seeds, Mapping) else enumerate_names(seeds)
        for label, seed in named:
            genome = self.space.canonical(seed)
            if (genome_key(genome), fidelity) in self._seen_at:
                self._proposer.rejected[DUPLICATE] += 1
            else:
                self._seeds.append((label, genome))
        self._exhausted = self._exhausted and not self._seeds

    def _next_seed(self, index: int) -> _Item | None:
        while self._seeds:
            label, genome = self._seeds.popleft()
            key = genome_key(genome)
            waiting = {genome_key(item.genome) for item in self._window}
            if (key, self._fidelity) not in self._seen_at and key not in waiting:
                self._proposer.seen.discard(key)  # it may have been seen at another fidelity
            rng = np.random.default_rng([self.seed, index, 2])
            accepted = self._proposer.accept(genome, rng)
            if accepted is not None:
                return _Item(index, accepted, SEED + label)
        return None

    def _take_up(self, item: _Item, stored: TrialRecord) -> None:
        """Let a stored trial stand for the proposal of its place."""
        genome = np.array(stored.genome, dtype=np.int64)
        if not np.array_equal(genome, item.genome):
            _log.warning(
                "trial %d in the store differs from what this run proposes there; the store is "
                "right, but the search will not equal an undisturbed one (something it depends "
                "on has changed)",
                stored.number,
            )
            self._proposer.seen.discard(genome_key(item.genome))
            if item.origin.startswith(SEED):
                self._seeds.appendleft((item.origin.removeprefix(SEED), item.genome))
            item.genome = genome
        self._proposer.seen.add(genome_key(genome))
        item.stored = stored

    def _submit(self, items: Iterable[_Item], fidelity: Fidelity, wanted: int | None) -> None:
        """Start what is neither stored nor started, in order."""
        waiting = 0
        for item in items:
            if item.stored is not None:
                continue
            if item.number is None:
                if wanted is not None and item.index >= wanted:
                    return
                self._start(item, len(self._trials) + waiting, fidelity)
            waiting += 1

    def _start(self, item: _Item, number: int, fidelity: Fidelity) -> None:
        attempts = self._store.start(number, item.genome.tolist())
        item.number, item.attempts = number, attempts
        self._seen_at.add((genome_key(item.genome), fidelity))
        if attempts > MAX_ATTEMPTS:
            item.attempts = MAX_ATTEMPTS
            item.evaluation = Evaluation(
                error=f"interrupted at each of {MAX_ATTEMPTS} attempts; it is not tried again"
            )
            return
        candidate = self.space.decode(item.genome)
        self._executor.submit(number, candidate, fidelity, trial_seed(self.seed, number))

    def _collect(self, items: Iterable[_Item]) -> None:
        by_number = {item.number: item for item in items if item.number is not None}
        for number, evaluation in self._executor.wait(_WAIT_SECONDS):
            if number in by_number:
                by_number[number].evaluation = evaluation

    def _finish(self, item: _Item, fidelity: Fidelity) -> TrialRecord:
        """Store an evaluated trial; it is acknowledged when this returns."""
        number = len(self._trials)
        record = self._judge.record(
            number=number,
            genome=item.genome,
            candidate=self.space.decode(item.genome),
            fidelity=fidelity,
            seed=trial_seed(self.seed, number),
            attempts=item.attempts,
            origin=item.origin,
            priced=self._pricer.metrics([item.genome])[0],
            evaluation=item.evaluation or Evaluation(error="it was not evaluated"),
        )
        self._store.append(record)
        self._trials.append(record)
        self._archive(record)
        return record

    def _tell(self, index: int, record: TrialRecord) -> None:
        self._told += 1
        # not in _inform: what other stages chose says nothing of whether the search's own work
        self._complete += self._judge.losses(record) is not None
        self._inform(index, record)

    def _inform(self, index: int, record: TrialRecord) -> None:
        losses = self._judge.losses(record)
        genome = np.array(record.genome, dtype=np.int64)
        self._seen_at.add((genome_key(genome), record.fidelity))
        self.strategy.tell(Outcome(index, genome, losses, self._judge.violations(record)))

    def _archive(self, record: TrialRecord) -> None:
        losses = self._judge.losses(record)
        if losses is not None and self._judge.feasible(record):
            archive = self._archives.setdefault(record.fidelity, ParetoArchive(len(losses)))
            archive.add(losses, record.number)

    def _check_any_complete(self) -> None:
        """Give up when nothing has worked so far.

        Raises:
            AutocompressError: with the commonest reason.
        """
        if self._complete or self._told < self._fail_after:
            return
        raise all_failed(
            [r for r in self._trials if r.state == "failed" and not r.origin.startswith(CHOSEN)]
        )

    def _abandon(self, items: Iterable[_Item]) -> None:
        """Stop what was started and did not come back; it does not count as an attempt."""
        self._executor.cancel()
        for item in items:
            if item.number is not None:
                with suppress(StorageError):  # the error that brought us here matters more
                    self._store.abandon(item.number)
                item.number = item.evaluation = None

    # -- chosen trials ---------------------------------------------------------------------------

    def evaluate(
        self,
        genomes: Sequence[Genome],
        *,
        fidelity: Fidelity,
        origin: str = "caller",
        deadline: float | None = None,
        on_trial: Callable[[TrialRecord], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[TrialRecord]:
        """Evaluate given genomes at a fidelity, past the strategy: the front at a dearer one.

        What the store has at this fidelity is not evaluated again. Constraints are not enforced.

        Args:
            genomes: what to evaluate, in order.
            fidelity: effort spent on each.
            origin: recorded as ``"chosen:<origin>"``.
            deadline: value of ``time.monotonic()`` after which no trial is started.
            on_trial: called with each trial finished now.
            should_stop: asked before each trial whether to stop.

        Returns:
            Trials in the order of ``genomes``, failed ones included; fewer when it was stopped.
        """
        wanted = [self.space.canonical(genome) for genome in genomes]
        known = {(genome_key(np.array(r.genome)), r.fidelity) for r in self._trials}
        todo = deque(
            _Item(-1, np.frombuffer(key, dtype=np.int64), CHOSEN + origin)
            for key in dict.fromkeys(genome_key(g) for g in wanted)
            if (key, fidelity) not in known
        )
        window: deque[_Item] = deque()
        limits = _Limits(deadline=deadline, should_stop=should_stop)
        try:
            while todo or window:
                while todo and len(window) < self._in_flight and limits.reached() is None:
                    window.append(todo.popleft())
                    self._submit(window, fidelity, None)
                if not window:
                    break
                if window[0].evaluation is None:
                    self._collect(window)
                    continue
                record = self._finish(window[0], fidelity)
                window.popleft()
                if on_trial is not None:
                    on_trial(record)
        except BaseException:
            self._abandon(window)
            raise
        done = {r.genome: r for r in reversed(self._trials) if r.fidelity == fidelity}
        keys = [tuple(int(g) for g in genome) for genome in wanted]
        return [done[key] for key in keys if key in done]


def trial_seed(seed: int, number: int) -> int:
    """The seed of trial ``number`` in a study with ``seed``, 0 .. 2**31 - 1."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def enumerate_names(genomes: Sequence[Genome]) -> Iterable[tuple[str, Genome]]:
    """Genomes named by their place."""
    return ((str(i), genome) for i, genome in enumerate(genomes))
