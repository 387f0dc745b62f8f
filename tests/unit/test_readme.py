"""The README's tables against the code."""

import pytest

from service import errors
from service.refusals import STATUS
from tests import readme


@pytest.mark.parametrize("name", readme.TABLES)
def test_table_of_the_readme_is_what_the_code_says(name: str) -> None:
    """A table in the README is exactly the one made from the code."""
    assert readme.documented(name) == readme.TABLES[name]()


def test_every_error_has_a_status() -> None:
    """The status table lists each request error once, so the README's does."""
    assert set(STATUS) == set(errors.RequestError.__subclasses__())
