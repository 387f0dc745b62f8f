"""What the tests do with the page, in the words of its visitor."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

EXAMPLE: dict[str, Any] = {
    "history": {"ids": [1, 3114, 4886, 6377], "tags": [3, 3, 3, 3]},
    "candidates": {"ids": [8961, 296, 1258, 318], "tags": [2, 6, 12, 7]},
    "explain": True,
}


def score(page: "Page") -> dict[str, Any]:
    """Press Score; the answer, once it is shown."""
    with page.expect_response("**/score") as response:
        page.get_by_role("button", name="Score", exact=False).click()
    page.locator("#score:not([aria-busy])").wait_for()
    answer: dict[str, Any] = response.value.json()
    return answer


def ranked(page: "Page") -> list[str]:
    """The names of the candidates, best first."""
    return page.locator("#ranking .what > span").all_inner_texts()


def explain(page: "Page", name: str) -> "Locator":
    """Open a candidate; its explanation."""
    page.locator("#ranking .row", has_text=name).click()
    return page.locator("#explanation")


def chips(page: "Page", part: str) -> "Locator":
    """The items of a part."""
    return page.locator(f"#{part} .chip .name")


def text(page: "Page", tab: str) -> str:
    """What stands under a tab of "As text"."""
    page.get_by_role("tab", name=tab).click()
    return page.locator("#code").inner_text()


def request(page: "Page") -> Any:
    """The request as it would be sent."""
    return json.loads(text(page, "Request"))


def weights(page: "Page", column: str) -> list[float]:
    """The values of a heat strip."""
    cells = page.get_by_role("list", name=f"Attention to history {column}").get_by_role("listitem").all()
    return [float(cell.get_attribute("data-weight") or "nan") for cell in cells]
