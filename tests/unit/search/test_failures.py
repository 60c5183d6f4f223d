from __future__ import annotations

from dataclasses import replace

import pytest

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import TrialRecord
from autocompress.errors import AutocompressError, RequestError
from autocompress.search.failures import all_failed

TRIAL = TrialRecord(0, (0,), Candidate(), Fidelity.SHORT, "failed", {})


@pytest.mark.parametrize(
    ("errors", "words", "code"),
    [
        pytest.param(
            ["DivergedError: nan at step 3", "DivergedError: nan at step 4"],
            "all of the first 2 trials failed; the commonest reason (2 of 2): DivergedError, such "
            "as 'DivergedError: nan at step 3'. Fix it, then resume the run",
            2,
            id="the-request",
        ),
        pytest.param(
            ["ZeroDivisionError: division by zero"] * 3 + ["DataError: x"],
            "(3 of 4): ZeroDivisionError: division by zero. Fix it",
            1,
            id="a-bug",
        ),
        pytest.param(["annotations: odd"], "(1 of 1): annotations: odd", 1, id="no-error-s-name"),
    ],
)
def test_all_failed(errors: list[str], words: str, code: int) -> None:
    found = all_failed([replace(TRIAL, error=error) for error in errors])
    assert words in str(found)
    assert found.exit_code == code
    assert isinstance(found, RequestError if code == 2 else AutocompressError)
