"""What a panel of the dashboard looks like, whatever it shows: the kinds, their sizes, their colours."""

from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel: TypeAlias = timeseries.Panel | stat.Panel | heatmap.Panel
Kind = TypeVar("Kind", timeseries.Panel, stat.Panel, heatmap.Panel)
Queries: TypeAlias = dict[str, str]  # PromQL by the name that its line gets; {{label}} in it is replaced

SOURCE = DataSourceRef("prometheus", "${datasource}")
WIDTH = 24  # of Grafana's grid
HEIGHT, LOW = 8, 4


def graph(
    title: str,
    unit: str,
    queries: Queries,
    description: str,
    *,
    stacked: bool = False,
    exemplars: bool = False,
    limit: float | None = None,
    span: int = 8,
) -> timeseries.Panel:
    """Lines over time.

    Args:
        title: what is shown.
        unit: Grafana's name of it.
        queries: the lines.
        description: what it tells, and what is usual.
        stacked: the lines are parts of a whole.
        exemplars: requests that have a trace are drawn as points.
        limit: what should not be exceeded, drawn as a line.
        span: width.
    """
    panel = (
        _common(timeseries.Panel(), title, unit, description, span, HEIGHT)
        .min(0)
        .fill_opacity(40 if stacked else 8)
        .line_width(0 if stacked else 1)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel.thresholds(_thresholds((None, "green"), (limit, "red")))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE))
    for ref, (name, query) in zip("ABCDEFGH", queries.items(), strict=False):
        panel.with_target(_query(ref, query, name).range().exemplar(exemplars))
    return panel


def number(
    title: str,
    unit: str,
    query: str,
    description: str,
    *colours: tuple[float | None, str],
    named: str = "",
    span: int = 4,
) -> stat.Panel:
    """One number, with its course behind it.

    Args:
        title: what is shown.
        unit: Grafana's name of it.
        query: PromQL.
        description: what it tells, and what is usual.
        colours: each from a value on, the first from None.
        named: shown in place of the value; {{label}} in it is replaced.
        span: width.
    """
    panel = _common(stat.Panel(), title, unit, description, span, LOW)
    panel.reduce_options(common.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
    panel.graph_mode(BigValueGraphMode.NONE if named else BigValueGraphMode.AREA)
    panel.text_mode(BigValueTextMode.NAME if named else BigValueTextMode.VALUE)
    panel.color_mode(BigValueColorMode.VALUE)
    panel.thresholds(_thresholds(*(colours or ((None, "text"),))))
    target = _query("A", query, named)
    return panel.with_target(target.instant() if named else target.range())


def heat_map(title: str, unit: str, query: str, description: str, *, span: int = 8) -> heatmap.Panel:
    """How a histogram's buckets fill over time; `query` keeps the label le."""
    panel = _common(heatmap.Panel(), title, unit, description, span, HEIGHT)
    panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit)).cell_gap(1).show_legend().show_tooltip()
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
    )
    return panel.with_target(_query("A", query, "{{le}}").range().format(PromQueryFormat.HEATMAP))


def _common(panel: Kind, title: str, unit: str, description: str, span: int, height: int) -> Kind:
    panel.title(title).description(description).unit(unit).datasource(SOURCE).span(span).height(height)
    return panel


def _query(ref: str, query: str, name: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(ref).expr(query).legend_format(name).datasource(SOURCE)


def _thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    config = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    return config.steps([Threshold(value, colour) for value, colour in steps])
