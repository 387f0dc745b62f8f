"""The playground with a catalog and a token: titles, the keyboard alone, light and dark, small screens, and axe."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

pytest.importorskip("playwright", reason="no playwright")

from playwright.sync_api import Page, expect

from tests.browser import screen
from tests.browser.conftest import CATALOG, TOKEN, Visit
from tests.servers import Server

Open: TypeAlias = Callable[..., Page]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
BEST = "Incredibles, The (2004)"


@pytest.fixture
def show(visit: Visit, catalog_server: Server) -> Open:
    """Open the page with the token given: `show("#...", color_scheme="dark")`."""
    return lambda link="", **options: visit(catalog_server, link, **{"token": TOKEN, **options})


def test_example_has_titles(show: Open) -> None:
    """With a catalog items are called by their titles, and the request leaves the tags to it."""
    page = show()
    assert screen.request(page) == {
        **screen.EXAMPLE,
        **{part: {"ids": screen.EXAMPLE[part]["ids"]} for part in ("history", "candidates")},
    }
    screen.score(page)
    assert screen.ranked(page)[0] == BEST
    screen.explain(page, "Incredibles")
    expect(page.locator("#explanation .without")).to_contain_text("Without ")
    names = page.get_by_role("list", name="Attention to history ids").locator("span").all_inner_texts()
    assert names == [CATALOG[id_][1] for id_ in screen.EXAMPLE["history"]["ids"]]


def test_titles_are_found_while_typing(show: Open) -> None:
    """The combobox finds titles, is walked with the arrows, closed with Escape, and adds what Enter takes."""
    page = show()
    box = page.get_by_role("combobox", name="Add to history")
    box.press_sequentially("toy")
    options = page.get_by_role("option")
    expect(options).to_have_count(2)
    expect(box).to_have_attribute("aria-expanded", "true")
    box.press("ArrowDown")
    box.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    assert box.get_attribute("aria-activedescendant") == options.nth(1).get_attribute("id")
    title = str(options.nth(1).locator("span").text_content())
    box.press("Enter")
    expect(screen.chips(page, "history")).to_have_count(5)
    expect(screen.chips(page, "history").last).to_contain_text(title)
    box.press_sequentially("no such film")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    box.press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")


def test_strange_title_is_text(show: Open) -> None:
    """Markup in a title is shown as it is, and the item's large id is sent exactly."""
    page = show()
    page.get_by_role("combobox", name="Add to candidates").press_sequentially("quotes")
    page.get_by_role("option").first.click()
    expect(screen.chips(page, "candidates").last).to_contain_text(CATALOG[2**63 - 1][1])
    assert screen.request(page)["candidates"]["ids"][-1] == 2**63 - 1
    screen.score(page)


def test_chips_are_moved_and_removed(show: Open) -> None:
    """Chips are walked, moved and removed with the keyboard; the buttons and dragging do the same."""
    page = show()
    ids = screen.EXAMPLE["history"]["ids"]
    screen.chips(page, "history").first.focus()
    page.keyboard.press("Alt+ArrowRight")
    assert screen.request(page)["history"]["ids"] == [ids[1], ids[0], *ids[2:]]
    screen.chips(page, "history").nth(1).focus()
    page.get_by_role("button", name="Move earlier in history").click()
    assert screen.request(page)["history"]["ids"] == ids
    screen.chips(page, "history").first.drag_to(screen.chips(page, "history").nth(2))
    assert screen.request(page)["history"]["ids"] == [ids[1], ids[2], ids[0], ids[3]]
    screen.chips(page, "history").last.focus()
    page.keyboard.press("Delete")
    page.get_by_role("button", name=f"Remove {CATALOG[ids[0]][1]}").click()
    assert screen.request(page)["history"]["ids"] == [ids[1], ids[2]]


def test_tags_of_one_s_own_are_sent(show: Open) -> None:
    """An item entered with another tag than the catalog's sends its tag, and those of its neighbours."""
    page = show()
    page.get_by_role("combobox", name="Add to candidates").fill("318 9")
    page.get_by_role("combobox", name="Add to candidates").press("Enter")
    tags = [*screen.EXAMPLE["candidates"]["tags"], 9]
    assert screen.request(page)["candidates"] == {"ids": [8961, 296, 1258, 318, 318], "tags": tags}


def test_random_example_is_of_the_catalog(show: Open) -> None:
    """A random example holds items of the catalog, each once."""
    page = show()
    page.get_by_role("button", name="Random example").click()
    expect(page.locator(".chip")).to_have_count(len(CATALOG))  # which is as small as that
    request = screen.request(page)
    ids = [*request["history"]["ids"], *request["candidates"]["ids"]]
    assert sorted(ids) == sorted(CATALOG)


def test_token_is_asked_for_and_kept_to_the_tab(visit: Visit, catalog_server: Server) -> None:
    """Without a token a score is refused and its field marked; with it all works, and no link or command tells it."""
    page = visit(catalog_server, allowed=("401",))
    assert screen.score(page)["error"]["code"] == "unauthorized"
    expect(page.get_by_role("alert")).to_contain_text("unauthorized")
    expect(page.get_by_label("Token")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Token").press("Enter")
    expect(page.locator("#ranking .row")).to_have_count(4)
    expect(page.get_by_role("alert")).to_be_empty()
    expect(screen.chips(page, "history").first).to_contain_text("Toy Story")
    command = screen.text(page, "curl")
    assert "$DIN_TOKEN" in command
    assert TOKEN not in command + page.url + json.dumps(page.evaluate("({...localStorage})"))


def test_keyboard_is_enough(show: Open) -> None:
    """From loading to an explained result with Tab, Enter and Control+Enter alone."""
    page = show()
    tab_to(page, "Add to history")
    page.keyboard.type("incred")
    expect(page.get_by_role("option")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(screen.chips(page, "history")).to_have_count(5)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#ranking .row")).to_have_count(4)
    tab_to(page, "Shining, The (1980)")  # the best one is in the history now
    page.keyboard.press("Enter")
    expect(page.locator("#explanation")).to_be_visible()
    expect(page.locator(":focus")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Space")
    expect(page.locator("#explanation")).to_have_count(0)


def tab_to(page: Page, name: str) -> None:
    """Press Tab until an element of this name has the focus, and can be seen to have it."""
    label = "(element) => `${element.ariaLabel ?? ''} ${element.title}`"
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if name in focused.evaluate(label):
            assert focused.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
            return
    pytest.fail(f"{name} cannot be reached with Tab")


def test_theme_follows_the_system_until_it_is_chosen(show: Open) -> None:
    """The page is dark where the system is, and what the button says outlives a reload."""
    page, background = show(color_scheme="dark"), "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    button = page.get_by_role("button", name="Dark")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    light = page.evaluate(background)
    assert max(rgb(dark)) < 50
    assert min(rgb(light)) > 200
    page.reload()
    assert page.evaluate(background) == light


def rgb(color: str) -> list[int]:
    """The parts of `rgb(1, 2, 3)`."""
    return [int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]


def test_motion_is_reduced_on_request(show: Open) -> None:
    """Nothing moves for those who asked for that."""
    page = show(reduced_motion="reduce")
    screen.score(page)
    assert (
        page.locator("#ranking .bar span").first.evaluate("(bar) => getComputedStyle(bar).transitionDuration") == "0s"
    )


def prepare(page: Page, state: str) -> None:
    """Bring the page into a state."""
    if state == "searching":
        page.get_by_role("combobox", name="Add to history").press_sequentially("toy")
        page.get_by_role("option").first.wait_for()
        page.keyboard.press("ArrowDown")
    if state in {"scored", "as text"}:
        screen.score(page)
        screen.explain(page, BEST)
    if state == "as text":
        for part in ("history", "candidates"):
            page.get_by_role("button", name=f"Edit {part} as text").click()
        page.get_by_role("tab", name="Answer").click()
    if state == "refused":
        page.get_by_label("top_k").fill("0")
        page.get_by_role("combobox", name="Add to history").fill("two 3")
        page.get_by_role("combobox", name="Add to history").press("Enter")
        screen.score(page)


STATES = ("loaded", "searching", "scored", "as text", "refused")


@pytest.mark.parametrize("state", STATES)
def test_phone_does_not_scroll_sideways(show: Open, state: str) -> None:
    """At 360 pixels nothing is wider than the screen."""
    page = show(allowed=("422",), **PHONE)
    prepare(page, state)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"color_scheme": "light"}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param(PHONE, id="phone"),
    ],
)
def test_axe_finds_no_violation(show: Open, options: dict[str, Any], state: str) -> None:
    """No rule of axe-core is violated, contrast included, in any state."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python").Axe()
    page = show(allowed=("422",), reduced_motion="reduce", **options)
    prepare(page, state)
    results = axe.run(page)
    assert results.violations_count == 0, results.generate_report()
    assert results.response["testEngine"]["name"] == "axe-core"
