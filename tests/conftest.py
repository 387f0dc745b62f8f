"""What every test has: the marker of its folder, so that `-m unit` needs no decorator, and the one event loop."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

MARKERS = frozenset({"unit", "api", "e2e", "chaos", "browser"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every collected test.

    Raises:
        UsageError: a test lies in a folder that is no marker.
    """
    root = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(root):
            continue
        folders = item.path.relative_to(root).parts[:-1]
        marker = folders[0] if folders else "unit"
        if marker not in MARKERS:
            raise pytest.UsageError(f"{item.path}: {marker} is none of {', '.join(sorted(MARKERS))}")
        item.add_marker(marker)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only references keep anything alive, or let it go."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def anyio_backend() -> str:
    """Only asyncio: uvicorn and the batcher run on nothing else."""
    return "asyncio"
