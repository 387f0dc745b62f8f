import re

import pytest

from service import errors
from service.errors import DinserveError, RequestError

REQUEST_ERRORS = RequestError.__subclasses__()


def test_codes_are_unique() -> None:
    """No two errors share a code, which callers tell them by."""
    codes = [error.code for error in REQUEST_ERRORS]
    assert len(set(codes)) == len(codes) > 0


@pytest.mark.parametrize("error", REQUEST_ERRORS, ids=lambda error: error.code)
def test_code_is_the_class_name(error: type[RequestError]) -> None:
    """A code is its class's name in snake case, so that either leads to the other."""
    assert re.sub(r"(?<!^)([A-Z])", r"_\1", error.__name__).lower() == error.code


def test_every_error_is_in_one_tree() -> None:
    """Whatever the module defines can be caught as a `DinserveError`."""
    defined = [each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__]
    assert all(issubclass(each, DinserveError) for each in defined)


def test_request_error_carries_message_and_field() -> None:
    """A request error shows its message as text and keeps the field at fault."""
    error = errors.InvalidRequest("must be a list", "history.ids")
    assert (str(error), error.message, error.field) == ("must be a list", "must be a list", "history.ids")
    assert errors.NotReady("loading").field is None
