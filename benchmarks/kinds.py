"""Versions whose answers differ, and what each must answer: for loads during which versions change."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bodies import WORKLOADS, Workload, make_bodies, make_samples
from service import artifact
from service.batch import Floats

COUNT = 3  # kinds; version n is of the kind n % COUNT
BODIES = 400
WORKLOAD = "mixed"
SEED = 7


def kind_of(version: str) -> int:
    """Which kind a version is."""
    return int(version) % COUNT


def export_kinds(out: Path) -> list[Path]:
    """Export one network of each kind, with the committed model's sizes and random weights, as versions of `out`."""
    from benchmarks.models import COMMITTED, randomise
    from service.training.din import Din
    from service.training.export import Origin, export

    like = artifact.read_manifest(artifact.versions(COMMITTED)[-1])
    known = np.arange(1, 5001, dtype=np.int64)
    folders = []
    assert like.architecture is not None
    for kind in range(COUNT):
        din = Din(like.features, like.architecture, SEED + kind)
        randomise(din, np.random.default_rng(SEED + kind))
        folders.append(export(din, out, (known, known % 20), Origin()))
    return folders


def publish(kinds: Sequence[Path], model_dir: Path, version: int) -> Path:
    """Put a version of its kind into the model folder as an export does: written aside, renamed into place."""
    source = kinds[kind_of(str(version))]
    aside = model_dir / f".{version}.tmp"
    shutil.copytree(source, aside)
    manifest = artifact.read_manifest(source)
    artifact.write_manifest(aside, manifest.model_copy(update={"version": str(version)}))
    return aside.rename(model_dir / str(version))


class Kinds:
    """The networks, as versions to publish, and what each of them answers.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = export_kinds(folder / "kinds")
        self._expected = folder / "expected.npz"
        write_expected(self._folders, WORKLOADS[WORKLOAD], self._expected)

    def publish(self, model_dir: Path, version: int) -> Path:
        """Put a version into a model folder."""
        model_dir.mkdir(exist_ok=True)
        return publish(self._folders, model_dir, version)

    def load_command(self, port: int, rate: float, seconds: float, *more: str) -> list[str]:
        """What runs a load that checks each answer, at so many requests/s; 0: a closed loop."""
        given = [str(port), str(self._expected), "--rate", str(rate), "--seconds", str(seconds)]
        return [sys.executable, "-m", "benchmarks.checked_load", *given, *more]


def write_expected(kinds: Sequence[Path], workload: Workload, file: Path) -> None:
    """Compute what each kind answers to each body of a load, with TensorFlow's row by row signature."""
    from service.engine import tensorflow

    answers = {}
    for kind, folder in enumerate(kinds):
        manifest = artifact.read_manifest(folder)
        engine = tensorflow.RowEngine(tensorflow.SavedModel(folder), manifest)
        samples = make_samples(workload, BODIES, SEED, manifest)
        batches = [engine.pack([sample]) for sample in samples]
        answers[str(kind)] = np.concatenate([batch.split(engine.run(batch))[0] for batch in batches])
        engine.close()
    np.savez(file, **answers)  # type: ignore[arg-type]  # its stubs know only its own options


def read_expected(file: Path, workload: Workload) -> list[list[Floats]]:
    """What each kind answers, body by body."""
    ends = np.cumsum([body.rows for body in make_bodies(workload, BODIES, SEED)])[:-1]
    with np.load(file) as answers:
        return [np.split(answers[str(kind)], ends) for kind in range(COUNT)]
