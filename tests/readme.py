"""The tables of the README, as the code has them."""

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticUndefined

from service import artifact, refusals
from service.config import Settings
from service.metrics import Metrics

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DERIVED = {
    "executors": "its share of the CPUs it may use",
    "inline_ms": "5 with one executor, else 0",
    "intra_op_threads": "as many as executors",
    "rollout_file": "`rollout.json` in the model folder",
}


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows))


def errors() -> str:
    """Every error code with its status and meaning."""
    rows = [
        (f"`{error.code}`", str(status), (error.__doc__ or "").splitlines()[0])
        for error, status in refusals.STATUS.items()
    ]
    return table(("code", "status", "when"), rows)


def settings() -> str:
    """Every setting with its default and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = DERIVED[name] if field.default is PydanticUndefined else f"`{field.default}`"
        rows.append((f"`DIN_{name.upper()}`", default, field.description or ""))
    return table(("variable", "default", "meaning"), rows)


def metrics() -> str:
    """Every metric with its type, labels and meaning."""
    rows = [(f"`{name}`", kind, ", ".join(labels), text) for name, kind, labels, text in Metrics.table()]
    return table(("metric", "type", "labels", "meaning, and where its clock starts"), rows)


def quality() -> str:
    """How well the committed version ranks and predicts."""
    found = artifact.read_manifest(ROOT / "model_artifacts" / "din" / "1").metrics
    rows = [(name, f"{each.auc:.4f}", f"{each.gauc:.4f}", f"{each.logloss:.4f}") for name, each in found.items()]
    return table(("scorer", "AUC", "GAUC", "logloss"), rows)


TABLES = {each.__name__: each for each in (errors, settings, metrics, quality)}


def documented(name: str) -> str:
    """The table that stands in the README under a name."""
    found = re.search(rf"<!-- table: {name} -->\n\n?((?:\|.*\n)+)", README.read_text())
    return found.group(1).rstrip() if found else ""


def fenced(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
