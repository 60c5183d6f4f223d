"""When every trial failed: one error with the commonest reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autocompress import errors
from autocompress.core.trial import TrialRecord
from autocompress.errors import AutocompressError, RequestError


def all_failed(
    trials: Sequence[TrialRecord], advice: str = "Fix it, then resume the run"
) -> AutocompressError:
    """The error of a search of which no trial worked.

    A :class:`RequestError` when the reason is one, such as a loss that is no longer finite.

    Args:
        trials: failed ones, at least one.
        advice: what to do about it.
    """
    reasons = Counter(str(r.error) for r in trials)
    kinds = Counter(reason.split(":")[0] for reason in reasons.elements())
    reason, times = reasons.most_common(1)[0]
    kind, of_kind = kinds.most_common(1)[0]
    common = reason if times > 1 or of_kind == 1 else f"{kind}, such as {reason!r}"
    known = getattr(errors, kind, AutocompressError)
    asked_wrongly = isinstance(known, type) and getattr(known, "exit_code", 1) == 2
    return (RequestError if asked_wrongly else AutocompressError)(
        f"all of the first {len(trials)} trials failed; the commonest reason "
        f"({max(times, of_kind)} of {len(trials)}): {common}. {advice}"
    )
