"""Makes dashboards/dinserve.json of its rows.

`python -m deploy.grafana.dashboard` writes it again. Grafana 10.1 and later read it.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.model import DATA, MODEL, PROCESS
from deploy.grafana.panels import SOURCE, Panel
from deploy.grafana.queries import HERE
from deploy.grafana.serving import BATCHING, OVERVIEW, QUEUE, TIME

FILE = Path(__file__).with_name("dashboards") / "dinserve.json"

ROWS: dict[str, list[Panel]] = {
    "Overview": OVERVIEW,
    "Where the time goes": TIME,
    "Batching and executors": BATCHING,
    "Queue and shedding": QUEUE,
    "Model": MODEL,
    "Data and quality": DATA,
    "Process": PROCESS,
}

EVENTS = {
    "Version changes": ("purple", f"sum by (version) (changes(din_model_info{{{HERE}}}[$__rate_interval])) > 0"),
    "Alerts": ("red", 'ALERTS{job="dinserve", alertstate="firing"}'),
}


def make_dashboard() -> models.Dashboard:
    """Everything, laid out."""
    board = (
        dashboard.Dashboard("dinserve")
        .uid("dinserve")
        .tags(["dinserve"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_values("instance", 'din_build_info{job="dinserve"}'))
        .with_variable(_values("version", f"din_model_loaded_timestamp_seconds{{{HERE}}}"))
    )
    for name, (colour, query) in EVENTS.items():
        board.annotation(dashboard.AnnotationQuery().name(name).datasource(SOURCE).icon_color(colour).expr(query))
    for title, panels in ROWS.items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    made = board.build()
    for at, each in enumerate(made.panels or [], 1):
        each.id_val = at
    return made


def _values(label: str, series: str) -> dashboard.QueryVariable:
    """A choice among the values of a label, several or all."""
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({series}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NUMERICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def render() -> str:
    """The text of the file."""
    return json.dumps(make_dashboard(), cls=JSONEncoder, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
