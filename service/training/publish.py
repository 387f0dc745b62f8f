"""Puts a report into a version's folder while servers may be reading it.

A server takes no notice of `report/` but through the manifest, which is replaced last and in one step: whoever loads
the version meanwhile has its old state or its new one.
"""

import os
import shutil
import tempfile
from pathlib import Path

from service import artifact
from service.artifact import Manifest
from service.training.markdown import to_markdown
from service.training.plots import draw_reliability, draw_slices
from service.training.report import Report


def publish(version: Path, manifest: Manifest, report: Report) -> Path:
    """Write the report into `version`, and seal it into the manifest. Returns the report's folder.

    Raises:
        OSError: the folder cannot be written; the manifest is the old one.
    """
    folder = version / artifact.REPORT
    folder.mkdir(exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        _write(aside, report)
        written = sorted(aside.iterdir())
        for path in written:
            path.replace(folder / path.name)
        _seal(version, aside, manifest.model_copy(update={"evaluation": report.evaluation}))
    finally:
        shutil.rmtree(aside)
    return folder


def _write(folder: Path, report: Report) -> None:
    (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n")
    (folder / "report.md").write_text(to_markdown(report))
    draw_reliability(report, folder / "reliability.png")
    draw_slices(report, folder / "slices.png")


def _seal(version: Path, aside: Path, manifest: Manifest) -> None:
    """Replace the manifest by one with the sums of what now is in `report/`; the model's own sums stay as they are."""
    files = {**manifest.served_files, **artifact.report_sums(version)}
    path = aside / artifact.MANIFEST
    with path.open("w") as file:
        file.write(manifest.model_copy(update={"files": files}).model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(version / artifact.MANIFEST, path)
    path.replace(version / artifact.MANIFEST)
