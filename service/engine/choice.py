"""Which engine a version gets: the native one where it proves itself against TensorFlow, else TensorFlow's."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service import artifact
from service.artifact import Manifest, to_array
from service.batch import Floats, Ids, Sample
from service.config import EngineChoice
from service.engine import Engine, native, tensorflow
from service.engine.checkpoint import check_maps
from service.engine.native.variables import find_variables
from service.errors import ArtifactError
from service.trial import Verdict

RANDOM_REQUESTS = 200
AT_ONCE = 25  # requests in a batch: few calls of TensorFlow, and little memory for its repeated histories

logger = logging.getLogger(__name__)


def load(
    version: Path,
    manifest: Manifest,
    choice: EngineChoice = "auto",
    *,
    intra_op_threads: int = 1,
    inter_op_threads: int = 1,
) -> Engine:
    """Load a version with the engine that was chosen; `auto` is native, or TensorFlow where that is not possible.

    Raises:
        ArtifactError: the version does not load with TensorFlow, or is to be native and cannot be.
    """
    model = tensorflow.SavedModel(version, intra_op_threads, inter_op_threads)
    reason = None
    try:
        check_maps(version, manifest.variables or {})
        tensorflow.open_engine(model, manifest)  # what the manifest names is there, or no engine serves it
        if choice != "tensorflow":
            try:
                return _load_native(version, manifest, model)
            except ArtifactError as error:
                if choice == "native":
                    raise
                reason = str(error)
                logger.warning("serving with TensorFlow: %s", reason)
        return tensorflow.open_engine(model, manifest, reason)
    except Exception:
        model.close()
        raise


def load_tried(
    version: Path, manifest: Manifest, verdict: Verdict, *, intra_op_threads: int = 1, inter_op_threads: int = 1
) -> Engine:
    """Load a version with the engine that a trial in another process settled on; nothing is compared again.

    Raises:
        ArtifactError: it does not load.
    """
    if verdict.engine == native.NativeEngine.name:
        return native.load(version, manifest, verdict.places)
    model = tensorflow.SavedModel(version, intra_op_threads, inter_op_threads)
    try:
        return tensorflow.open_engine(model, manifest, verdict.fallback_reason)
    except Exception:
        model.close()
        raise


def settle(version: Path, served: Engine, manifest: Manifest) -> Verdict:
    """What a process that has loaded a version tells one that will."""
    is_native = served.name == native.NativeEngine.name
    places = find_variables(version, manifest.variables or {}) if is_native else None
    return Verdict(served.name, served.fallback_reason, places)


def _load_native(version: Path, manifest: Manifest, model: tensorflow.SavedModel) -> Engine:
    try:
        engine = native.load(version, manifest)
        check(engine, version, manifest, model)
    except ArtifactError:
        raise
    except Exception as error:  # no memory, say: whatever it is, TensorFlow may still serve
        reason = str(error).partition("\n")[0]
        raise ArtifactError(f"{version}: the native engine fails: {type(error).__name__}: {reason}") from error
    model.close()
    return engine


def check(engine: Engine, version: Path, manifest: Manifest, model: tensorflow.SavedModel) -> None:
    """Compare an engine with the SavedModel: golden requests and random ones, probabilities and attention.

    Raises:
        ArtifactError: an answer differs by more than `artifact.TOLERANCE`, or is not a number.
    """
    samples = [*_golden(version, manifest), *_random(manifest)]
    rows = tensorflow.RowEngine(model, manifest)
    blocks = tensorflow.open_engine(model, manifest)
    for start in range(0, len(samples), AT_ONCE):
        some = samples[start : start + AT_ONCE]
        _compare(version, _answers(rows, some), _answers(engine, some))
        if blocks.explains:
            _compare(version, _explanations(blocks, some), _explanations(engine, some))


def _compare(version: Path, expected: list[Floats], actual: list[Floats]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        difference = float(np.abs(ours - theirs).max(initial=0))
        if not difference <= artifact.TOLERANCE:  # NaN fails too
            raise ArtifactError(f"{version}: the native engine differs from TensorFlow by {difference:.2g}")


def _answers(engine: Engine, samples: list[Sample]) -> list[Floats]:
    batch = engine.pack(samples)
    return batch.split(engine.run(batch))


def _explanations(engine: Engine, samples: list[Sample]) -> list[Floats]:
    """Probabilities (C,) and both attentions (C, T) and (C, U) of each sample."""
    batch = engine.pack(samples)
    parts = [batch.split(each) for each in engine.explain(batch)]
    return [
        each
        for probability, ids, tags, sample in zip(*parts, samples, strict=True)
        for each in (probability, ids[:, : len(sample.seq_id)], tags[:, : len(sample.seq_tag)])
    ]


def _golden(version: Path, manifest: Manifest) -> list[Sample]:
    if artifact.GOLDEN not in manifest.files:
        return []
    return [artifact.golden_sample(manifest, request) for request in artifact.read_golden(version).requests]


def _random(manifest: Manifest) -> Iterator[Sample]:
    """Requests of every shape, half of them with few values that repeat."""
    rng = np.random.default_rng(0)
    features = manifest.features.id, manifest.features.tag

    def draw(count: int, most: int, dtype: str) -> Ids:
        return to_array(rng.integers(-most, most, count).tolist(), dtype)

    for i in range(RANDOM_REQUESTS):
        most = 20 if i % 2 else 2**40
        candidates = int(rng.integers(1, 40))
        lengths = [int(rng.integers(0, each.max_history, endpoint=True)) for each in features]
        yield Sample(
            *(draw(length, most, each.dtype) for length, each in zip(lengths, features, strict=True)),
            *(draw(candidates, most, each.dtype) for each in features),
        )
