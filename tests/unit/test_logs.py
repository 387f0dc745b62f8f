from pathlib import Path

import tensorflow as tf

from service.training.logs import Logs


def test_curves_are_written(tmp_path: Path) -> None:
    """Each value becomes a point of the curve of its name, as TensorBoard reads scalars."""
    logs = Logs(tmp_path / "din")
    logs.write(3, loss=0.5, gauc=0.75)
    logs.write(4, loss=0.25)
    logs.flush()
    [path] = (tmp_path / "din").iterdir()
    points = [
        (event.step, value.tag, float(tf.make_ndarray(value.tensor)))
        for event in map(tf.compat.v1.Event.FromString, (each.numpy() for each in tf.data.TFRecordDataset(str(path))))
        for value in event.summary.value
    ]
    assert points == [(3, "loss", 0.5), (3, "gauc", 0.75), (4, "loss", 0.25)]


def test_nothing_is_written_without_a_folder() -> None:
    """Without a folder there are no curves."""
    logs = Logs(None)
    logs.write(1, loss=0.5)
    logs.flush()
