"""The README's pictures of the playground: `python -m tests.browser.pictures --catalog films.csv`.

They show the committed version, with the titles of a catalog that `dinserve catalog` has made of the MovieLens files.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests import readme
from tests.browser import screen
from tests.browser.conftest import MODEL_DIR, QUIET
from tests.servers import Server, run_server

FOLDER = readme.ROOT / "service" / "playground"
FILMS = "#history=1:3,3114:3,4886:3,6377:3,1270:3,1210:2,2571:2,260:2&candidates="
LIKED = FILMS + "8961:2,296:6,1258:12,318:7,2355:3,1196:2,5349:2,593:7"
REFUSED = FILMS + "8961:2,2.5:6,318:7"
CALLS = 24  # so that there is a line to see


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalog", type=Path, required=True, help="as DIN_CATALOG")
    parser.add_argument("--port", type=int, default=8000, help="which the pictures show")
    arguments = parser.parse_args()
    catalog, port = arguments.catalog.resolve(), arguments.port
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(QUIET))
        with run_server(Path(folder, "server.log"), MODEL_DIR, catalog=catalog, port=port) as server:
            take(browser, server, LIKED, "light")
            take(browser, server, REFUSED, "dark")
        browser.close()


def take(browser: Browser, server: Server, link: str, scheme: str) -> None:
    """Write one picture: the candidates of a link scored, the second of them explained; or the refusal."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{server.url}/{LIKED}")
    page.locator("html[data-ready]").wait_for()
    for _ in range(CALLS):
        screen.score(page)
    page.locator("#ranking .row").nth(1).click()
    if link != LIKED:
        page.goto(f"{server.url}/{link}")
        screen.score(page)
        page.get_by_role("tab", name="curl").click()
    page.mouse.move(0, 0)
    page.locator("#ranking").evaluate(
        "(ranking) => Promise.all(ranking.getAnimations({subtree: true}).map((each) => each.finished))"
    )
    picture = Image.open(BytesIO(page.screenshot(full_page=True)))
    picture.convert("RGB").quantize(256).save(FOLDER / f"{scheme}.png", optimize=True)
    page.close()


if __name__ == "__main__":
    main()
