"""What every executor can do, and what it owes its study."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation

#: How often a trial is started at most when its worker dies: once, and again at most twice.
MAX_ATTEMPTS = 3

#: Key in :attr:`Evaluation.details` for how often the trial was started, when more than once.
ATTEMPTS = "attempts"


class Executor(ABC):
    """Runs evaluations somewhere and hands back what came of them.

    Used from one thread. Obligations:

    - Every submitted trial comes back from :meth:`wait` exactly once, as an evaluation that is
      complete or failed: exceptions, dead workers and missed deadlines are failed evaluations
      with a reason, never exceptions of :meth:`wait`.
    - A trial whose worker dies is started again at most twice (:data:`MAX_ATTEMPTS`); the number
      of starts is ``details["attempts"]`` when it is more than one.
    - Results may come back in any order; the study puts them in order.
    - No trial runs longer than the executor's deadline for one trial.
    - When the driver's process ends, however it ends, so does everything the executor started.
    - After :meth:`close` nothing it started is left.
    """

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many trials can run at the same time."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """How many submitted trials have not come back."""

    @abstractmethod
    def submit(self, number: int, candidate: Candidate, fidelity: Fidelity, seed: int) -> None:
        """Start an evaluation, or queue it.

        Args:
            number: the trial's number; not among those pending.
            candidate: what to evaluate.
            fidelity: the effort to spend.
            seed: the trial's own seed.
        """

    @abstractmethod
    def wait(self, timeout: float | None = None) -> list[tuple[int, Evaluation]]:
        """What has come back, waiting for at least one when something is pending.

        Args:
            timeout: seconds to wait at most; None waits for a result. An executor that runs
                trials in the caller's thread finishes the trial it has begun.

        Returns:
            Numbers and evaluations; empty when the time is over or nothing is pending.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Forget everything pending; trials that run are ended. The executor stays usable."""

    @abstractmethod
    def close(self) -> None:
        """End everything; calling it again does nothing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
