"""The playground, as somebody uses it who has bare ids: score, rank, explain, copy, share, and what goes wrong."""

import json
import shutil
import subprocess
from typing import Any

import pytest

pytest.importorskip("playwright", reason="no playwright")

from playwright.sync_api import Request, Route, expect

from tests.browser import screen
from tests.browser.conftest import Visit
from tests.servers import Server

LONGEST = 2**63 - 1


def test_example_is_scored_and_ranked_at_once(visit: Visit, server: Server) -> None:
    """The README's example is there, and pressing Score shows what the API answers, best first."""
    page = visit(server)
    assert screen.request(page) == screen.EXAMPLE
    answer = screen.score(page)
    best_first = sorted(zip(answer["probabilities"], screen.EXAMPLE["candidates"]["ids"], strict=True), reverse=True)
    assert screen.ranked(page) == [f"id {id_}" for _, id_ in best_first] == ["id 8961", "id 296", "id 318", "id 1258"]
    assert page.locator("#ranking .value").all_inner_texts() == [f"{value:.4f}" for value, _ in best_first]
    expect(page.locator("footer")).to_contain_text("model din 1")
    expect(page.locator("#health")).to_have_text("ready")


def test_top_k_divides_the_ranking(visit: Visit, server: Server) -> None:
    """With top_k the ranking says where the server's ends; the rest follows."""
    page = visit(server)
    page.get_by_label("top_k").fill("2")
    assert screen.score(page)["ranking"] == [0, 1]
    rows = page.locator("#ranking > li").all_inner_texts()
    assert [row.startswith("Beyond top_k = 2") for row in rows] == [False, False, True, False, False]


def test_candidate_is_explained(visit: Visit, server: Server) -> None:
    """A candidate opens into the weights of each history item, and its score without the one most attended to."""
    page = visit(server)
    answer = screen.score(page)
    screen.explain(page, "id 8961")
    for column in ("ids", "tags"):
        shown = screen.weights(page, column)
        assert shown == answer["attention"][column][0]
        assert sum(shown) == pytest.approx(1, abs=1e-5)
    at = answer["attention"]["removed"][0]
    history = {name: [*column[:at], *column[at + 1 :]] for name, column in screen.EXAMPLE["history"].items()}
    expected = server.score({**screen.EXAMPLE, "history": history}).json()["probabilities"][0]
    removed, change = screen.EXAMPLE["history"]["ids"][at], round(expected, 4) - round(answer["probabilities"][0], 4)
    sign = "−" if change < 0 else "+"  # noqa: RUF001  a minus
    line = f"Without id {removed}: {expected:.4f} ({sign}{abs(change):.4f})"
    expect(page.locator("#explanation .without")).to_have_text(line)
    expect(page.locator("#explanation .caveat")).to_contain_text("not what caused the score")


def test_history_beyond_the_model_names_the_newest(visit: Visit, server: Server) -> None:
    """Of a history longer than the model's maximum the strip shows the newest, under their own names."""
    items = ",".join(f"{id_}:3" for id_ in range(1000, 1060))
    page = visit(server, f"#history={items}&candidates=318:7")
    screen.score(page)
    screen.explain(page, "id 318")
    cells = page.get_by_role("list", name="Attention to history ids").locator("span").all_inner_texts()
    assert cells == [f"id {id_}" for id_ in range(1010, 1060)]
    expect(page.locator("#explanation")).to_contain_text("newest 50 of 60")


def test_empty_history_has_nothing_to_explain(visit: Visit, server: Server) -> None:
    """Without a history a candidate scores, and says that there was nothing to look at."""
    page = visit(server)
    page.get_by_role("button", name="Clear history").click()
    screen.score(page)
    screen.explain(page, "id 318")
    expect(page.locator("#explanation")).to_contain_text("The history is empty")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_copied_curl_gets_the_same_answer(visit: Visit, server: Server) -> None:
    """What the copy button gives runs in a shell, and is answered as the page was."""
    page = visit(server, permissions=["clipboard-read", "clipboard-write"])
    answer = screen.score(page)
    page.get_by_role("tab", name="curl").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#copy")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    again = json.loads(subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout)  # noqa: S607
    assert (again["probabilities"], again["attention"]) == (answer["probabilities"], answer["attention"])


def test_request_and_answer_are_copied(visit: Visit, server: Server) -> None:
    """Request and answer are JSON: what was sent, and what came back."""
    page = visit(server, permissions=["clipboard-read", "clipboard-write"])
    answer = screen.score(page)
    for tab, expected in (("Request", screen.EXAMPLE), ("Answer", answer)):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("button", name="Copy", exact=True).click()
        assert json.loads(page.evaluate("navigator.clipboard.readText()")) == expected


def test_quotes_survive_the_shell(visit: Visit, server: Server) -> None:
    """An id with a quote in it leaves the shell's command whole."""
    page = visit(server, "#history=&candidates=it%27s:7")
    command = screen.text(page, "curl").replace("curl -s", "printf '%s\n'", 1)
    told = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout  # noqa: S607
    assert '"ids": ["it\'s"]' in told


@pytest.mark.parametrize(
    ("link", "field", "message", "chip"),
    [
        pytest.param("#history=1:3,two:3&candidates=318:7", "history.ids[1]", "an integer", "id two", id="id"),
        pytest.param("#history=1:3&candidates=318:7,296:x", "candidates.tags[1]", "an integer", "id 296", id="tag"),
        pytest.param(
            f"#history=1:3&candidates={LONGEST + 1}:7",
            "candidates.ids[0]",
            "64-bit",
            f"id {LONGEST + 1}",
            id="too-large",
        ),
        pytest.param("#history=1:3&candidates=318", "candidates.tags", "as many tags as ids", None, id="lengths"),
    ],
)
def test_error_is_shown_where_it_is(
    visit: Visit, server: Server, link: str, field: str, message: str, chip: str | None
) -> None:
    """An error has the API's code, message and field, and the item that it names is marked until it is mended."""
    page = visit(server, link, allowed=("422",))
    answer = screen.score(page)
    alert = page.get_by_role("alert")
    assert answer["error"]["field"] == field
    for part in ("invalid_request", message, field, answer["request_id"]):
        expect(alert).to_contain_text(part)
    part = field.partition(".")[0]
    if chip is None:
        expect(page.locator(f"#{part}.wrong-part")).to_be_visible()
    else:
        expect(page.locator(f"#{part} .chip.wrong")).to_contain_text(chip)
    page.get_by_role("button", name=f"Clear {part}").click()
    expect(page.locator(".wrong, .wrong-part")).to_have_count(0)


def test_wrong_top_k_is_marked(visit: Visit, server: Server) -> None:
    """What is no top_k is left to the API to refuse, and its field is marked."""
    page = visit(server, allowed=("422",))
    page.get_by_label("top_k").fill("many")
    assert screen.score(page)["error"]["field"] == "top_k"
    expect(page.get_by_label("top_k")).to_have_attribute("aria-invalid", "true")


def test_lost_server_is_told_kindly(visit: Visit, server: Server) -> None:
    """When the network is gone the page says so, keeps the example and works again afterwards."""
    page = visit(server, allowed=("ERR_INTERNET_DISCONNECTED",))
    page.context.set_offline(True)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.locator("#health")).to_have_text("unreachable")
    page.context.set_offline(False)
    screen.score(page)
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.locator("#health")).to_have_text("ready")
    assert screen.request(page) == screen.EXAMPLE


def test_large_ids_survive(visit: Visit, server: Server) -> None:
    """An id that JavaScript's numbers cannot hold is sent digit by digit, from a chip, a list or a link."""
    page = visit(server)
    page.get_by_role("button", name="Clear history").click()
    page.get_by_label("Add to history").fill(f"{LONGEST} 3, -{LONGEST + 1} 4")
    page.get_by_label("Add to history").press("Enter")
    expect(screen.chips(page, "history")).to_have_count(2)
    with page.expect_request("**/score") as sent:
        screen.score(page)
    body = json.loads(sent.value.post_data or "")
    assert body["history"] == {"ids": [LONGEST, -LONGEST - 1], "tags": [3, 4]}
    page.reload()
    assert screen.request(page)["history"] == body["history"]


def test_columns_are_edited_as_text(visit: Visit, server: Server) -> None:
    """As text the two columns may differ in length, and come from JSON as well as from lists."""
    page = visit(server)
    page.get_by_role("button", name="Edit history as text").click()
    page.get_by_label("history.ids").fill("[1, 3114]")
    page.get_by_label("history.tags").fill("3\n4 5")
    assert screen.request(page)["history"] == {"ids": [1, 3114], "tags": [3, 4, 5]}
    assert len(screen.score(page)["probabilities"]) == 4


def test_pasted_lines_become_items(visit: Visit, server: Server) -> None:
    """Lines of an id and a tag, pasted, are that many candidates."""
    page = visit(server, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Clear candidates").click()
    page.evaluate("navigator.clipboard.writeText('318 7\\n296 6\\n1258 12')")
    page.get_by_label("Add to candidates").press("Control+v")
    assert screen.request(page)["candidates"] == {"ids": [318, 296, 1258], "tags": [7, 6, 12]}


def test_strings_are_quoted_where_the_model_wants_them(visit: Visit, server: Server) -> None:
    """Ids and tags are written as GET /model says: here the real answer, changed to strings on its way."""
    page = visit(server)

    def change(route: Route, _: Request) -> None:
        model: dict[str, Any] = route.fetch().json()
        for feature in model["features"].values():
            feature["dtype"] = "string"
        route.fulfill(json=model)

    page.route("**/model", change)
    page.reload()
    page.locator("html[data-ready]").wait_for()
    assert screen.request(page)["candidates"] == {"ids": ["8961", "296", "1258", "318"], "tags": ["2", "6", "12", "7"]}


def test_link_shares_an_example(visit: Visit, server: Server) -> None:
    """The copied link opens elsewhere with the same request."""
    page = visit(server, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Random example").click()
    page.get_by_label("top_k").fill("3")
    page.get_by_label("explain").uncheck()
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    other = visit(server, link.removeprefix(f"{server.url}/"))
    assert screen.request(other) == screen.request(page) != screen.EXAMPLE
    assert screen.request(other)["top_k"] == 3


def test_broken_link_shows_the_example(visit: Visit, server: Server) -> None:
    """What is no link of the page's own is ignored."""
    assert screen.request(visit(server, "#history=%&candidates=%zz")) == screen.EXAMPLE


def test_page_works_below_a_root_path(visit: Visit, server: Server) -> None:
    """Behind a proxy that takes a prefix away, the page calls nothing outside that prefix."""
    page, called = visit(server), set()
    page.route("**/ctr/**", lambda route: route.continue_(url=route.request.url.replace("/ctr/", "/")))
    page.on("request", lambda request: called.add(request.url.removeprefix(server.url)))
    page.goto(f"{server.url}/ctr/")
    page.locator("html[data-ready]").wait_for()
    screen.score(page)
    expected = {f"/ctr/{name}" for name in ("", "health", "model", "openapi.json", "score")}
    assert {path for path in called if not path.startswith("data:")} == expected
    assert f"'{server.url}/ctr/score'" in screen.text(page, "curl")


def test_latency_adds_up(visit: Visit, server: Server) -> None:
    """The legend holds the stages of the answer, and with the network they are the round trip."""
    page = visit(server)
    latency = screen.score(page)["latency_ms"]
    shown = {
        str(entry.get_attribute("data-stage")): float(entry.locator("b").inner_text().split()[0])
        for entry in page.locator("[data-stage]").all()
    }
    whole, server_total = (
        float(line.locator("span").last.inner_text().split()[0]) for line in page.locator(".stack-line").all()
    )
    for stage in ("parse", "queue", "pack", "infer"):
        assert shown[stage] == pytest.approx(latency[stage], rel=0.01, abs=0.051)
    assert server_total == pytest.approx(latency["total"], rel=0.01, abs=0.051)
    assert whole == pytest.approx(sum(shown.values()), rel=0.05, abs=0.2)


def test_repeat_scores_until_it_is_stopped(visit: Visit, server: Server) -> None:
    """With repeat on, calls go on and their latencies are drawn; an open candidate stays open."""
    page = visit(server)
    page.get_by_label("repeat").check()
    screen.explain(page, "id 318")
    with page.expect_response("**/score"):
        pass
    expect(page.get_by_role("img", name="Last 2: server p50")).to_be_visible()
    expect(page.locator("#explanation")).to_be_visible()
    page.get_by_label("repeat").uncheck()
