"""Curves of a training, as TensorBoard reads them."""

from pathlib import Path
from typing import Any

import tensorflow as tf


class Logs:
    """Scalars of one fit, in a folder of their own; without a folder nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self._writer = tf.summary.create_file_writer(str(folder)) if folder else None

    def write(self, step: int, **values: Any) -> None:
        """Add a point to each curve."""
        if self._writer is None:
            return
        with self._writer.as_default(step):
            for name, value in values.items():  # not tf.summary.scalar: it needs TensorBoard to be installed
                tf.summary.write(name, tf.constant(float(value)), metadata=_SCALAR)

    def flush(self) -> None:
        """Hand over what was written."""
        if self._writer is not None:
            self._writer.flush()


_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
)
