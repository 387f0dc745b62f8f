"""The TensorFlow engine: a version's SavedModel, called by signature.

A session is used rather than `tf.saved_model.load`: thread counts belong to the version, not the process, closing
it gives the memory back, and calls are cheaper. Measured at 10 candidates x 20: 0.35 ms for an eager signature, 0.27
for `Session.make_callable`, 0.11 for the session's own callable, 0.09 for that on the calling thread.
"""

import gc
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: its banner is not for our log

# TensorFlow counts its compilations where Python cannot read them, but it can be told to keep each program that it
# compiles as a file. In its own file system in memory that needs no disk, and costs a tenth of a second for the
# committed model. It reads the flag once, when it starts; of two directories it takes the last.
os.environ["TF_XLA_FLAGS"] = os.environ.get("TF_XLA_FLAGS", "") + " --tf_xla_persistent_cache_directory=ram://compiled"

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions

from service.artifact import BlockSignature, Features, Manifest, to_array
from service.batch import BlockBatch, Floats, Ids, Sample, pack_blocks
from service.engine import Engine
from service.engine.checkpoint import check_maps, check_numbers
from service.errors import ArtifactError

v1 = tf.compat.v1

EXPLAIN_OUTPUTS = ("probability", "attention_id", "attention_tag")

_counting = threading.Lock()


def load(version: Path, manifest: Manifest, *, intra_op_threads: int = 1, inter_op_threads: int = 1) -> Engine:
    """Load a version with the best signature it has.

    Raises:
        ArtifactError: not a SavedModel, or without the signatures, inputs or outputs its manifest names; or a map of
            its names a row that its tables do not have.
    """
    model = SavedModel(version, intra_op_threads, inter_op_threads)
    try:
        check_maps(version, manifest.variables or {})
        return open_engine(model, manifest)
    except Exception:
        model.close()
        raise


def open_engine(model: "SavedModel", manifest: Manifest, fallback_reason: str | None = None) -> Engine:
    """Call a SavedModel by the best signature that its manifest names.

    Raises:
        ArtifactError: it does not have the signatures, inputs or outputs its manifest names.
    """
    rows = RowEngine(model, manifest, fallback_reason)  # named even where it is not called
    score = manifest.signatures.score
    return BlockEngine(model, manifest, score, fallback_reason) if score else rows


def count_compilations() -> int:
    """Programs that this process has compiled with XLA since it was last asked, whichever version's; 3 us if none.

    Nothing else can slow a request in that way: a session runs graphs, so there is no Python function to trace again.
    """
    with _counting:
        files = tf.io.gfile.glob("ram://compiled/*.pb")
        for file in files:
            tf.io.gfile.remove(file)  # a megabyte each, and a later session would load it instead of compiling
    return len(files)


class SavedModel:
    """A session over a SavedModel; `signature` gives plain callables from arrays to arrays."""

    def __init__(self, folder: Path, intra_op_threads: int = 1, inter_op_threads: int = 1) -> None:
        self.folder = folder
        graph = tf.Graph()
        config = v1.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
            use_per_session_threads=True,
        )
        # One thread across operations means the calling thread itself: no hand-over, and executors do not share it.
        self._options = v1.RunOptions(inter_op_thread_pool=-1 if inter_op_threads == 1 else 0)
        with graph.as_default():
            self._session = v1.Session(graph=graph, config=config)
            try:
                self._signatures = _quietly(v1.saved_model.load, self._session, ["serve"], str(folder)).signature_def
            except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
                self._session.close()
                raise ArtifactError(f"{folder}: not a SavedModel that loads: {_first_line(error)}") from error
        try:
            check_numbers(folder)
        except BaseException:
            self.close()
            raise

    def signature(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Callable[..., list[Any]]:
        """A callable taking arrays in the order of `inputs` (name: dtype), answering arrays in the order of `outputs`.

        Raises:
            ArtifactError: the SavedModel has no such signature, input or output, or an input is of another dtype.
        """
        if name not in self._signatures:
            raise ArtifactError(f"{self.folder}: no signature {name}; it has {', '.join(sorted(self._signatures))}")
        found = self._signatures[name]
        for kind, wanted, given in (("input", inputs, found.inputs), ("output", outputs, found.outputs)):
            if missing := sorted(set(wanted) - set(given)):
                raise ArtifactError(f"{self.folder}: signature {name} has no {kind} {', '.join(missing)}")
        for each, dtype in inputs.items():
            actual = tf.as_dtype(found.inputs[each].dtype)
            if not np.can_cast(dtype.as_numpy_dtype, actual.as_numpy_dtype):
                raise ArtifactError(f"{self.folder}: signature {name} takes {each} as {actual.name}, not {dtype.name}")
        options = CallableOptions(
            feed=[found.inputs[each].name for each in inputs],
            fetch=[found.outputs[each].name for each in outputs],
            run_options=self._options,
        )
        call: Callable[..., list[Any]] = self._session._make_callable_from_options(options)  # noqa: SLF001  see above
        casts = [tf.as_dtype(found.inputs[each].dtype).as_numpy_dtype for each in inputs]
        if all(dtype.as_numpy_dtype == cast for dtype, cast in zip(inputs.values(), casts, strict=True)):
            return call
        return lambda *arrays: call(*(array.astype(cast) for array, cast in zip(arrays, casts, strict=True)))

    def close(self) -> None:
        """Free the session's variables and threads, and the graph with the weights in it once no signature is held."""
        self._session.close()
        del self._session
        gc.collect()  # a graph and its operations refer to each other


class BlockEngine:
    """Calls the `score` signature: each history once, candidates in blocks."""

    name = "tensorflow"

    def __init__(
        self, model: SavedModel, manifest: Manifest, score: BlockSignature, fallback_reason: str | None = None
    ) -> None:
        self.fallback_reason = fallback_reason
        self._manifest, self._model = manifest, model
        self._block = score.block
        inputs = {**_row_inputs(manifest.features), "block_request": tf.int32}
        self._score = model.signature(score.name, inputs, ("probability",))
        self._explain = None
        if explain := manifest.signatures.explain:
            self._explain = model.signature(explain.name, inputs, EXPLAIN_OUTPUTS)

    @property
    def explains(self) -> bool:
        """Whether the version came with an `explain` signature."""
        return self._explain is not None

    def pack(self, samples: Sequence[Sample]) -> BlockBatch:
        """Blocks of the width the signature was exported with."""
        return pack_blocks(samples, self._block)

    def run(self, batch: BlockBatch) -> Floats:
        """Probabilities (K, B)."""
        probability: Floats = self._score(*_arrays(batch))[0]
        return probability

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Probabilities (K, B), attention (K, B, T) and (K, B, U)."""
        if self._explain is None:
            raise TypeError("this version has no explain signature")
        probability, ids, tags = self._explain(*_arrays(batch))
        return probability, ids, tags

    def warm(self) -> None:
        """Run the signature once: a version exported here compiles one shape whatever it is sent."""
        batch = self.pack([_any_sample(self._manifest)])
        self.run(batch)
        if self.explains:
            self.explain(batch)

    def compilations(self) -> int:
        """Programs this process has compiled since it was last asked."""
        return count_compilations()

    def close(self) -> None:
        """Free the SavedModel."""
        del self._score, self._explain
        self._model.close()


class RowEngine:
    """Calls a row-per-candidate signature, the history repeated for each: what a SavedModel made elsewhere has."""

    name = "tensorflow-rows"
    explains = False

    def __init__(self, model: SavedModel, manifest: Manifest, fallback_reason: str | None = None) -> None:
        self.fallback_reason = fallback_reason
        row, self._manifest, self._model = manifest.signatures.row, manifest, model
        inputs = {getattr(row, name): dtype for name, dtype in _row_inputs(manifest.features).items()}
        self._rows = model.signature(row.name, inputs, (row.output,))

    def pack(self, samples: Sequence[Sample]) -> BlockBatch:
        """Blocks of one candidate."""
        return pack_blocks(samples, 1)

    def run(self, batch: BlockBatch) -> Floats:
        """Probabilities (K, 1)."""
        of = batch.block_request
        probability = self._rows(
            batch.seq_id[of],  # (R, T) -> (K, T)
            batch.seq_tag[of],
            batch.seq_id_length[of],
            batch.seq_tag_length[of],
            batch.target_id[:, 0],  # (K, 1) -> (K,)
            batch.target_tag[:, 0],
        )[0]
        return np.asarray(probability, np.float32).reshape(batch.target_id.shape)

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Never called: `explains` is False."""
        raise TypeError("a row-per-candidate signature has no attention to show")

    def warm(self) -> None:
        """Run the signature once."""
        self.run(self.pack([_any_sample(self._manifest)]))

    def compilations(self) -> int:
        """Programs this process has compiled since it was last asked."""
        return count_compilations()

    def close(self) -> None:
        """Free the SavedModel."""
        del self._rows
        self._model.close()


def _row_inputs(features: Features) -> dict[str, Any]:
    """Our names of a row-per-candidate signature's inputs, in order, and their dtypes."""
    ids, tags = tf.as_dtype(features.id.dtype), tf.as_dtype(features.tag.dtype)
    return {
        "seq_id": ids,
        "seq_tag": tags,
        "seq_id_length": tf.int32,
        "seq_tag_length": tf.int32,
        "target_id": ids,
        "target_tag": tags,
    }


def _arrays(batch: BlockBatch) -> tuple[Ids, ...]:
    return (
        batch.seq_id,
        batch.seq_tag,
        batch.seq_id_length,
        batch.seq_tag_length,
        batch.target_id,
        batch.target_tag,
        batch.block_request,
    )


def _any_sample(manifest: Manifest) -> Sample:
    ids, tags = (to_array([0], feature.dtype) for feature in (manifest.features.id, manifest.features.tag))
    return Sample(ids, tags, ids, tags)


def _quietly(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call without TensorFlow's warning that v1 loading is deprecated in favour of the eager one."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        return call(*arguments)
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
