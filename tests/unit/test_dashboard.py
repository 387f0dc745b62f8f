"""The dashboard: what the generator makes, and what Grafana accepts."""

import importlib.metadata
import json
import re
import tomllib
from itertools import combinations, pairwise
from typing import Any

import pytest

from service.specs import SPECS
from tests.image import ROOT, read_yaml
from tests.monitoring import DASHBOARD, FOLDER, dashboard, expressions, panels, rules, substitute

sdk = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="grafana-foundation-sdk is not here")

PANELS = pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])


def test_committed_dashboard_is_what_the_generator_makes() -> None:
    """`python -m deploy.grafana.dashboard` would change nothing."""
    from deploy.grafana.dashboard import render

    assert DASHBOARD.read_text() == render()


def test_generator_is_the_version_that_is_asked_for() -> None:
    """The library's version fixes what is made, so exactly one is installed for development."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    version = importlib.metadata.version("grafana-foundation-sdk")
    assert f"grafana-foundation-sdk=={version}" in extra


def test_grafana_knows_every_field() -> None:
    """Read into Grafana's own types and written again, nothing of the file is lost."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    read = sdk.Dashboard.from_json(dashboard())
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == dashboard()


def test_panels_are_apart() -> None:
    """Ids and titles are unique; rows of panels fill the grid's 24 columns, and none lies over another."""
    everything = dashboard()["panels"]
    assert sorted(panel["id"] for panel in everything) == list(range(1, len(everything) + 1))
    assert len({panel["title"] for panel in everything}) == len(everything)
    cells = [place(panel) for panel in everything]
    for one, other in combinations(cells, 2):
        assert one.isdisjoint(other)
    filled = set().union(*cells)
    assert {x for x, _ in filled} == set(range(24))
    assert len(filled) == 24 * (1 + max(y for _, y in filled))
    assert all(one["gridPos"]["y"] <= other["gridPos"]["y"] for one, other in pairwise(everything))


def place(panel: dict[str, Any]) -> set[tuple[int, int]]:
    """The cells of the grid that a panel covers."""
    at = panel["gridPos"]
    return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}


@PANELS
def test_panel_explains_itself(panel: dict[str, Any]) -> None:
    """A panel has a unit, a description, and a name for every line that is not alone."""
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert len(panel["description"]) > 20
    assert panel["targets"]
    assert panel["type"] == "stat" or all(target["legendFormat"] for target in panel["targets"])
    for target in panel["targets"]:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert all(re.search(rf"\b{label}\b", target["expr"]) or ":" in target["expr"] for label in named)


@PANELS
def test_panel_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    """A panel and its queries name no data source of their own, so that any Prometheus will do."""
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [chosen] * (
        1 + len(panel["targets"])
    )


@PANELS
def test_panel_is_of_the_chosen_instances(panel: dict[str, Any]) -> None:
    """A panel follows the choice of instances, or says that it shows all of them."""
    follows = all("$instance" in target["expr"] for target in panel["targets"])
    assert follows != ("All instances" in panel["description"])


def test_latency_panels_show_exemplars() -> None:
    """Panels of the request's and the stages' time ask for exemplars, which lead to traces."""
    asking = {panel["title"] for panel in panels() if any(target.get("exemplar") for target in panel["targets"])}
    assert asking == {"Request time", "Slowest requests by stage"}


def test_variables_are_those_that_are_used() -> None:
    """Each variable of the dashboard is used by a panel, and none is used that is not there."""
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard()["panels"])))
    assert used == names | {"__rate_interval"}
    assert names == {"datasource", "instance", "version"}
    assert "$" not in substitute('rate(x{instance=~"$instance"}[$__rate_interval])')


def test_panels_ask_for_what_there_is() -> None:
    """Every metric on the dashboard is one of the server's, of its process's, or is recorded by a rule."""
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {spec.name + part for spec in SPECS for part in parts[spec.kind]}
    known |= {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions().values():
        asked = set(re.findall(r"[\w:]*\bdin_\w+(?::\w+)?", expression))
        assert asked <= known, expression
        assert asked or re.search(r"\bprocess_|\bup\{", expression)


def test_what_is_recorded_is_used() -> None:
    """Each recorded series is on the dashboard or in an alert, or nobody would miss it."""
    asked = " ".join([*expressions().values(), *(rule["expr"] for rule in rules())])
    for rule in rules():
        if "record" in rule:
            assert re.search(rf"{rule['record']}\b", asked), rule["record"]


def test_runbooks_name_panels_and_rows() -> None:
    """What the runbooks call a panel or a row of the dashboard is one."""
    text = re.sub(r"\s+", " ", (FOLDER / "RUNBOOKS.md").read_text())
    named = set(re.findall(r"\*([A-Z][^*.]+)\*", text))
    assert named
    assert named <= {panel["title"] for panel in dashboard()["panels"]}


def test_grafana_finds_its_files() -> None:
    """The compose file mounts the provisioning and the dashboard where Grafana and the provider look."""
    service = read_yaml("docker-compose.yml")["services"]["grafana"]
    mounts = {target: ROOT / source for source, target, *_ in (each.split(":") for each in service["volumes"])}
    (provider,) = read_yaml(mounts["/etc/grafana/provisioning"] / "dashboards" / "dinserve.yml")["providers"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts[provider["options"]["path"]] == DASHBOARD.parent
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"
    (source,) = read_yaml(mounts["/etc/grafana/provisioning"] / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scraped = read_yaml(FOLDER / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
