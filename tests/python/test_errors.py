"""The exceptions themselves: what they are, what they show, and that they travel."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest
from stepstone import errors

# What programs written for Orbax, or for Python's own files, catch.
CAUGHT_AS = {
    "not_found": FileNotFoundError,
    "already_exists": ValueError,
    "mismatch": ValueError,
    "invalid_argument": ValueError,
    "limit": ValueError,
    "corrupt": ValueError,
    "io": OSError,
    "no_space": OSError,
    "permission_denied": PermissionError,
    "read_only": ValueError,
    "busy": TimeoutError,
    "closed": RuntimeError,
    "unsupported": ValueError,
}


@pytest.mark.parametrize("code", CAUGHT_AS)
def test_each_code_is_caught_as_what_programs_catch(code: str) -> None:
    error = errors.from_code(code, "step 3 item 'state': no")
    assert isinstance(error, CAUGHT_AS[code])
    assert isinstance(error, errors.StepstoneError)
    assert error.code == code
    assert str(error) == "step 3 item 'state': no"


@pytest.mark.parametrize("code", CAUGHT_AS)
def test_an_exception_survives_pickling_and_copying(code: str) -> None:
    error = errors.from_code(code, "what happened")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == "what happened"


def test_a_code_of_a_newer_library_is_an_error_all_the_same() -> None:
    assert str(errors.from_code("from_the_future", "what happened")) == "what happened"


def test_a_step_that_exists_is_caught_in_the_older_and_in_the_newer_style() -> None:
    error = errors.from_code("already_exists", "step 3")
    assert isinstance(error, ValueError)
    assert isinstance(error, FileExistsError)


def test_errors_of_the_system_have_its_number() -> None:
    assert errors.NoSpaceError("the disk is full").errno == errno.ENOSPC
    assert errors.PermissionDeniedError("no").errno == errno.EACCES


def test_the_message_of_a_missing_item_is_not_shown_in_quotes() -> None:
    assert str(errors.ItemNotFoundError("there is no item 'a'")) == "there is no item 'a'"
    assert str(errors.NoEntryError("none")) == "none"
