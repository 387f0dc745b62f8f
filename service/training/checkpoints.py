"""What a training that was killed goes on from: its state on disk, whole or not at all."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from service.errors import DataError
from service.training import Samples, Split, add
from service.training.recipe import Recipe

RUN = "run.json"  # what the checkpoints of a folder are of


class Checkpoints:
    """The checkpoints of one fit, in a folder of their own; without a folder nothing is kept.

    Args:
        folder: made when it is needed.
        every_s: a state is written when this much time has passed since the last one: a shorter training leaves none.
        clock: tells monotonic seconds.
        begin: called before a state is written.
    """

    def __init__(
        self,
        folder: Path | None,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.every_s, self._clock, self._begin = folder, every_s, clock, begin
        self._manager: Any = None
        self._written = clock()

    def restore(self, state: Any) -> None:
        """Take up the newest state on disk, if there is one."""
        if self.folder is None:
            return
        self._manager = tf.train.CheckpointManager(tf.train.Checkpoint(state=state), str(self.folder), max_to_keep=2)
        newest = self._manager.latest_checkpoint
        if newest is not None:
            self._manager.checkpoint.restore(newest).assert_consumed()
        self._written = self._clock()

    @property
    def due(self) -> bool:
        """Whether it is time to `save`."""
        return self._manager is not None and self._clock() - self._written >= self.every_s

    def save(self) -> None:
        """Write the state: beside its place, then the file that names the newest one is replaced.

        Raises:
            OSError: the folder cannot be written.
        """
        if self._manager is None:
            return
        self._begin()
        try:
            self._manager.save()
        except tf.errors.OpError as error:  # TensorFlow's own, also for a full disk
            raise OSError(f"{self.folder}: cannot be written: {str(error.message).splitlines()[0]}") from error
        self._written = self._clock()


class Folder:
    """Where the fits of one run keep their checkpoints.

    Args:
        path: None keeps nothing.
        every_s: of each `Checkpoints`.
    """

    def __init__(self, path: Path | None = None, every_s: float = 60.0) -> None:
        self.path, self.every_s = path, every_s
        self._told: dict[str, Any] = {}

    def open(self, split: Split, recipe: Recipe, *, resume: bool) -> None:
        """Prepare for a run on `split` as `recipe` says, from nothing or from what is there.

        Raises:
            DataError: there is nothing to resume, or it is of other data or another recipe; or the folder is of
                something else.
        """
        if self.path is None:
            return
        self._told = {"recipe": recipe.model_dump(mode="json"), "data": _digest(split)}
        if resume:
            if not (self.path / RUN).exists():
                raise DataError(f"{self.path}: no training to resume")
            found = json.loads((self.path / RUN).read_text())
            for name, value in self._told.items():
                if found.get(name) != value:
                    raise DataError(f"{self.path}: is of another {name}, so it cannot be resumed")
            return
        self.remove()
        if self.path.exists() and any(self.path.iterdir()):
            raise DataError(f"{self.path}: holds something else than checkpoints")

    def _begin(self) -> None:
        """Make the folder, and say what it is of."""
        if self.path is None or (self.path / RUN).exists():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        aside = self.path / f"{RUN}.aside"
        aside.write_text(json.dumps(self._told))
        aside.replace(self.path / RUN)

    def of(self, name: str) -> Checkpoints:
        """Those of one fit."""
        return Checkpoints(self.path / name if self.path else None, self.every_s, begin=self._begin)

    def remove(self) -> None:
        """Delete everything: the run is over. A folder that is of something else stays."""
        if self.path is not None and (self.path / RUN).exists():
            shutil.rmtree(self.path, ignore_errors=True)


def _digest(split: Split) -> str:
    """Tells one split from another."""
    total = hashlib.sha256(split.source.encode())
    parts: list[Samples] = [split.train, split.validation, split.test]
    for part in parts:
        total.update(part.digest().encode())
        for values in (part.id_start, part.id_stop, part.event_id):
            add(total, values)
    return total.hexdigest()
