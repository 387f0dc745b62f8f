"""A training that was killed goes on as if nothing had happened."""

import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from service.artifact import Architecture
from service.errors import DataError
from service.training import Samples, Split
from service.training.checkpoints import Checkpoints, Folder
from service.training.recipe import Recipe
from service.training.train import Keeping, train

RECIPE = Recipe(
    architecture=Architecture(attention_hidden=(4,), head_hidden=(4,), shared_tables=True),
    dimension=4,
    id_buckets=64,
    tag_buckets=16,
    max_history=4,
    layer_norm=True,
    dropout=0.2,
    replace_rate=0.1,
    min_count=8,
    id_knots=3,
    id_start="clicks",
    resample="all",
    average=0.9,
    epochs=2,
    batch_rows=32,
    calibrate=True,
    refit=False,
    twin=False,
)
CODE = """
import pickle, sys
from pathlib import Path
from service.training.checkpoints import Folder
from service.training.train import Keeping, train
split, recipe = pickle.loads(Path(sys.argv[1]).read_bytes())
train(split, recipe, print, Keeping(Folder(Path(sys.argv[2]), 0.0)))
"""


@pytest.fixture(scope="module")
def split() -> Split:
    """Samples drawn at random."""
    rng, rows = np.random.default_rng(1), 600
    start, target = 2 * np.arange(rows), rng.integers(0, 40, rows)
    events, label = rng.integers(0, 40, 2 * rows), rng.integers(0, 2, rows).astype(np.float32)
    stops = start + rng.integers(0, 3, rows)
    drawn = Samples(events, events % 4, start, stops, start, stops, target, target % 4, label, rng.integers(0, 9, rows))
    parts = [drawn.take(np.arange(*bounds)) for bounds in ((0, 400), (400, 500), (500, 600))]
    return Split(parts[0], parts[1], parts[2], source="drawn")


def quiet(_: str) -> None:
    """Report nothing."""


def weights(din: Any) -> list[Any]:
    """Every weight of a network."""
    return [each.numpy() for each in din.variables]


def test_killed_training_goes_on(split: Split, tmp_path: Path) -> None:
    """A run killed with SIGKILL in the middle, and resumed, gives the weights of a run that nobody disturbed."""
    (tmp_path / "run").write_bytes(pickle.dumps((split, RECIPE)))
    folder = tmp_path / "checkpoints"
    command = [sys.executable, "-c", CODE, str(tmp_path / "run"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        undisturbed = train(split, RECIPE, quiet)
        late = time.monotonic() + 60
        while not any((folder / "din").glob("ckpt-18.index")) and time.monotonic() < late:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        printed = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    assert "din, epoch 1: " in printed
    lines: list[str] = []
    resumed = train(split, RECIPE, lines.append, Keeping(Folder(folder), resume=True))
    assert not any("din, epoch 1: " in line for line in lines)
    for one, other in zip(weights(undisturbed.din), weights(resumed.din), strict=True):
        np.testing.assert_array_equal(one, other)
    assert resumed.metrics == undisturbed.metrics


def keep(folder: Folder) -> None:
    """Write a state."""
    checkpoints = folder.of("din")
    checkpoints.restore(tf.Module())
    checkpoints.save()


def test_what_is_resumed_is_the_same_run(split: Split, tmp_path: Path) -> None:
    """Another recipe, other data, or nothing to resume is refused by name; a new run takes the place of an old one."""
    folder = Folder(tmp_path / "checkpoints")
    with pytest.raises(DataError, match="checkpoints: no training to resume"):
        folder.open(split, RECIPE, resume=True)
    folder.open(split, RECIPE, resume=False)
    assert not (tmp_path / "checkpoints").exists()
    keep(folder)
    folder.open(split, RECIPE, resume=True)
    with pytest.raises(DataError, match="is of another recipe, so it cannot be resumed"):
        folder.open(split, Recipe(), resume=True)
    other = replace(split, train=split.train.take(np.arange(10)))
    with pytest.raises(DataError, match="is of another data, so it cannot be resumed"):
        folder.open(other, RECIPE, resume=True)
    folder.open(other, RECIPE, resume=False)
    keep(folder)
    folder.open(other, RECIPE, resume=True)
    folder.remove()
    assert not (tmp_path / "checkpoints").exists()


def test_folder_of_something_else_stays(split: Split, tmp_path: Path) -> None:
    """A folder that holds something else is refused, and never deleted."""
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else than checkpoints"):
        Folder(tmp_path).open(split, RECIPE, resume=False)
    Folder(tmp_path).remove()
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_nothing_is_kept_without_a_folder(split: Split) -> None:
    """Without a folder there is nothing to restore, nothing due and nothing to remove."""
    folder = Folder()
    folder.open(split, RECIPE, resume=False)
    checkpoints = folder.of("din")
    checkpoints.restore(None)
    assert not checkpoints.due
    checkpoints.save()
    folder.remove()


def test_checkpoints_are_due_by_the_clock(tmp_path: Path) -> None:
    """A checkpoint is due when its time has passed since the last one."""
    now = [0.0]
    checkpoints = Checkpoints(tmp_path, every_s=10, clock=lambda: now[0])
    checkpoints.restore(tf.Module())
    now[0] = 9
    assert not checkpoints.due
    now[0] = 10
    assert checkpoints.due
    checkpoints.save()
    assert not checkpoints.due
