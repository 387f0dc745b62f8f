"""The README's tables against the code."""

import re

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


def test_pictures_of_the_readme_are_there_and_small() -> None:
    """Every picture that the README shows is in the repository, and below 200 KB."""
    pictures = [readme.ROOT / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme.README.read_text())]
    assert pictures
    assert {path.name: path.stat().st_size < 200_000 for path in pictures} == {path.name: True for path in pictures}
