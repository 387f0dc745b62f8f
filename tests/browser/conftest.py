"""Headless Chromium before real servers of the committed version, and what no visit may leave behind."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests import readme
from tests.servers import Server, run_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

MODEL_DIR = readme.ROOT / "model_artifacts" / "din"
TOKEN = "a-token-of-the-browser"  # noqa: S105  good nowhere else
CATALOG = {
    1: (3, "Toy Story (1995)"),
    3114: (3, "Toy Story 2 (1999)"),
    4886: (3, "Monsters, Inc. (2001)"),
    6377: (3, "Finding Nemo (2003)"),
    8961: (2, "Incredibles, The (2004)"),
    296: (6, "Pulp Fiction (1994)"),
    1258: (12, "Shining, The (1980)"),
    318: (7, "Shawshank Redemption, The (1994)"),
    2**63 - 1: (5, 'Film "with" quotes, and <b>tags</b>'),
}
QUIET = (
    "--no-sandbox",  # it runs as root in containers, and opens nothing but our page
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Visit: TypeAlias = Callable[..., "Page"]


# Fixtures of a module, not of the session: while Playwright runs, no other event loop can, and the tests after these
# need theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One browser for the tests of a module."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows bare ids, and asks for nothing."""
    log = tmp_path_factory.mktemp("plain") / "server.log"
    with run_server(log, MODEL_DIR, executors=1) as server:
        yield server


@pytest.fixture(scope="module")
def catalog_server(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows titles, and asks for a token."""
    folder = tmp_path_factory.mktemp("catalog")
    with run_server(
        folder / "server.log", MODEL_DIR, executors=1, token=TOKEN, catalog=write_catalog(folder / "catalog.csv")
    ) as server:
        yield server


def write_catalog(path: Path) -> Path:
    """Write `CATALOG` as CSV."""
    rows = [f'{id_},{tag},"{title.replace(chr(34), chr(34) * 2)}"' for id_, (tag, title) in CATALOG.items()]
    path.write_text("\n".join(["id,tag,title", *rows]) + "\n")
    return path


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Visit]:
    """Open a server's page and wait until it is complete: `visit(server, "#...", color_scheme="dark")`.

    At the end of the test no page may have logged anything to the console, failed a request, or called another server;
    `allowed` are words of what is expected all the same, `token` is one that was typed in this tab before.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_page(
        server: Server, link: str = "", *, allowed: tuple[str, ...] = (), token: str | None = None, **options: Any
    ) -> "Page":
        def note(text: str) -> None:
            if not any(word in text for word in allowed):
                problems.append(text)

        def follow(request: "Request") -> None:
            if not request.url.startswith((f"{server.url}/", "data:")):
                note(f"left the server: {request.url}")

        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: note(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: note(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: note(f"failed: {request.url} {request.failure}"))
        page.on("request", follow)
        if token is not None:
            page.add_init_script(f"sessionStorage.setItem('dinserve.token', '{token}')")
        page.goto(f"{server.url}/{link}")
        page.locator("html[data-ready]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
