"""Scores as a table for people."""

from collections.abc import Iterator
from typing import Any

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from service.client import Scores

WIDTH = 20  # of a bar, which is a probability from 0 to 1


def ranked(request: dict[str, Any], scores: Scores) -> Table:
    """The candidates, best first; with attention, the entry of the history that each looked at most."""
    latency = scores.latency_ms
    stages = ", ".join(f"{name} {getattr(latency, name):.3g}" for name in ("parse", "queue", "pack", "infer"))
    table = Table(
        title=f"{scores.model.name} version {scores.version}",
        caption=f"{latency.total:.3g} ms: {stages}\nrequest {scores.request_id}",
        title_style="bold",
        highlight=False,
    )
    for heading in ("", "id", "tag", "probability"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", width=WIDTH)
    looked_at = dict(_most_attended(request, scores))
    if looked_at:
        table.add_column("looks at", no_wrap=True)
        table.add_column("without", justify="right", no_wrap=True)
    candidates = request["candidates"]
    tags = candidates.get("tags", [""] * len(candidates["ids"]))
    for place, at in enumerate(order(scores), 1):
        probability = scores.probabilities[at]
        cells = (str(place), str(candidates["ids"][at]), str(tags[at]), f"{probability:.4f}")
        more = looked_at.get(at, ("", "")) if looked_at else ()
        bar = Bar(1.0, 0.0, probability, width=WIDTH, color="cyan")
        table.add_row(*map(Text, cells), bar, *map(Text, more))
    return table


def order(scores: Scores) -> list[int]:
    """Indexes of the candidates that are shown: the ranking, or else all, best first."""
    if scores.ranking is not None:
        return list(scores.ranking)
    return sorted(range(len(scores.probabilities)), key=lambda at: -scores.probabilities[at])


def _most_attended(request: dict[str, Any], scores: Scores) -> Iterator[tuple[int, tuple[str, str]]]:
    """Of each explained candidate: its index, the id it looked at most with the share, the probability without it."""
    attention, history = scores.attention, request["history"]["ids"]
    if attention is None:
        return
    for at, weights, removed, without in zip(
        attention.candidates, attention.ids, attention.removed, attention.without, strict=True
    ):
        if removed is not None:
            kept = history[-len(weights) :]  # the newest
            yield at, (f"{kept[removed]} ({weights[removed]:.0%})", f"{without:.4f}")
