"""Tables for people, one JSON line for programs, and the log of runs in RESULTS.md."""

import dataclasses
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.sections import Finding, Section
from benchmarks.servers import ROOT

RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> dict[str, str]:
    """Where and with what this run was made."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": _commit(),
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "python": platform.python_version(),
        "tensorflow": next(version(name) for name in ("tensorflow_cpu", "tensorflow") if _installed(name)),
        "others used": f"{psutil.cpu_percent(1.0) / 100 * (os.cpu_count() or 1):.2f} cores just before",
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, aligned so that it reads as text too."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def targets(findings: Iterable[Finding]) -> str:
    """Each number that has a target, and whether it is reached."""
    return table(
        [
            {
                "what": each.what,
                "measured": f"{each.value:.2f}{each.unit}",
                "target": f"{'>=' if each.at_least else '<='} {each.target:g}{each.unit}",
                "": "reached" if each.reached else "NOT reached",
                "note": each.note,
            }
            for each in findings
        ]
    )


def text(section: Section) -> str:
    """One section as Markdown."""
    return "\n\n".join(part for part in (f"#### {section.title}", section.note, table(section.rows)) if part)


def as_json(where: dict[str, str], sections: Sequence[Section]) -> str:
    """Everything in one line."""
    found = {
        "machine": where,
        "sections": {section.title: section.rows for section in sections},
        "targets": [
            {**dataclasses.asdict(each), "reached": each.reached} for section in sections for each in section.findings
        ],
    }
    return orjson.dumps(found).decode()


def append(where: dict[str, str], label: str, sections: Sequence[Section]) -> None:
    """Add a run to the end of RESULTS.md."""
    head = f"### {where['date']}, commit {where['commit']}, {label}"
    facts = ", ".join(f"{name} {value}" for name, value in where.items() if name not in {"date", "commit"})
    findings = targets(each for section in sections for each in section.findings)
    parts = [head, facts, findings, *(text(section) for section in sections)]
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n" + "\n\n".join(part for part in parts if part) + "\n")


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" and changes" if git("status", "--porcelain", "service") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False
