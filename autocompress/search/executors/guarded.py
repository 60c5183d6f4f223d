"""One evaluation, with whatever goes wrong turned into a failed one."""

from __future__ import annotations

import time
import traceback
from dataclasses import replace

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import Evaluation, Evaluator

_FRAMES = 6
_LONGEST = 4000


def evaluate(
    evaluator: Evaluator, candidate: Candidate, *, fidelity: Fidelity, seed: int
) -> Evaluation:
    """Evaluate; an exception becomes ``"Type: message"`` with a short traceback in the details.

    ``SystemExit`` is a failure like any other; ``KeyboardInterrupt`` passes through.
    """
    begin = time.perf_counter()
    try:
        result: object = evaluator.evaluate(candidate, fidelity=fidelity, seed=seed)
    except (Exception, SystemExit) as error:
        return failed(error, seconds=time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    if not isinstance(result, Evaluation):
        kind = type(result).__name__
        return Evaluation(seconds=seconds, error=f"the evaluator returned a {kind}, no Evaluation")
    return result if result.seconds > 0 else replace(result, seconds=seconds)


def failed(error: BaseException, *, seconds: float = 0.0) -> Evaluation:
    """The failed evaluation of an exception."""
    text = "".join(traceback.format_exception(error, limit=-_FRAMES))
    return Evaluation(
        seconds=seconds,
        error=f"{type(error).__name__}: {error}"[:_LONGEST],
        details={"traceback": text[-_LONGEST:]},
    )
