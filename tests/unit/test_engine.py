import gc
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.artifact import Manifest, Signatures
from service.batch import BlockBatch, Floats, Sample
from service.engine import Engine, native, tensorflow
from service.loading import open_version
from tests.fakes import FakeEngine

MakeSample: TypeAlias = Callable[..., Sample]

MOST = 50  # what the exported model reads of a history
SIZES = st.tuples(st.integers(0, MOST), st.integers(0, MOST), st.integers(1, 70))  # ids, tags, candidates
GROUPS = st.tuples(st.lists(SIZES, min_size=1, max_size=6), st.integers(0, 2**32), st.randoms())
TRAFFIC = """
import pathlib, sys
import numpy as np
from service.artifact import read_manifest
from service.batch import Sample
from service.engine.tensorflow import load
version = pathlib.Path(sys.argv[1])
engine = load(version, read_manifest(version))
engine.warm()
print(engine.compilations())
rng = np.random.default_rng(1)
for _ in range(100):
    samples = []
    for _ in range(rng.integers(1, 9)):
        lengths = (*rng.integers(0, 51, 2), *[rng.integers(1, 300)] * 2)
        samples.append(Sample(*(rng.integers(0, 99, length) for length in lengths)))
    batch = engine.pack(samples)
    engine.explain(batch) if rng.random() < 0.1 else engine.run(batch)
print(engine.compilations())
"""
SHAPES = """
import pathlib, sys
import numpy as np
from service.engine.tensorflow import SavedModel, count_compilations
import tensorflow as tf
folder, model = pathlib.Path(sys.argv[1]), tf.Module()
double = tf.function(lambda x: 2 * x, jit_compile=True)
model.call = tf.function(lambda x: {"y": double(x)}, input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
tf.saved_model.save(model, str(folder), signatures=model.call)
for sizes in (3, 3, 5, 3, 8), (3,):
    call = SavedModel(folder).signature("serving_default", {"x": tf.float32}, ("y",))
    for size in sizes:
        call(np.ones(size, np.float32))
        print(count_compilations())
"""


@pytest.fixture(scope="module")
def engine(exported: Path) -> Iterator[Engine]:
    """The engine over the exported version, warm."""
    served = open_version(exported, tensorflow.load)
    yield served.engine
    served.engine.close()


@pytest.fixture(scope="module")
def plain_engine(exported: Path, manifest: Manifest) -> Iterator[Engine]:
    """An engine of two threads over the same version, whose manifest does not mention `explain`."""
    signatures = manifest.signatures.model_copy(update={"explain": None})
    without = manifest.model_copy(update={"signatures": signatures})
    engine = tensorflow.load(exported, without, intra_op_threads=2, inter_op_threads=2)
    engine.warm()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def row_engine(exported: Path, manifest: Manifest) -> Iterator[Engine]:
    """The engine that repeats the history for each candidate, over the same version."""
    engine = tensorflow.load(exported, manifest.model_copy(update={"signatures": Signatures()}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def native_engine(exported: Path, manifest: Manifest) -> Engine:
    """The engine in C, over the same version."""
    if native.PROBLEM:
        pytest.skip(f"no native engine: {native.PROBLEM}")
    return native.load(exported, manifest)


@pytest.fixture(
    scope="module",
    params=[pytest.param("engine", id="blocks"), pytest.param("native_engine", id="native")],
)
def fast_engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the two that serve what was exported here."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture(scope="module")
def fake_engine() -> Engine:
    """The engine that the API's tests use instead."""
    return FakeEngine()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("signatures", [pytest.param(None, id="blocks"), pytest.param(Signatures(), id="rows")])
def test_closed_engine_leaves_no_graph(exported: Path, manifest: Manifest, signatures: Signatures | None) -> None:
    """A TensorFlow graph, which has weights in it, goes with its version, though only the collector can end it."""

    def graphs() -> int:
        return sum(type(each).__name__ == "Graph" for each in gc.get_objects())

    before = graphs()
    changed = {} if signatures is None else {"signatures": signatures}
    engine = tensorflow.load(exported, manifest.model_copy(update=changed))
    assert graphs() > before
    engine.close()
    assert graphs() == before


def answers(engine: Engine, samples: Sequence[Sample]) -> list[Floats]:
    """Probabilities of each sample, all in one batch."""
    batch = engine.pack(samples)
    return batch.split(engine.run(batch))


def longer(batch: BlockBatch, time: int, tags: int) -> BlockBatch:
    """The same batch with histories padded by more columns, of values that would show if they were read."""

    def pad(sequence: NDArray[Any], more: int) -> NDArray[Any]:
        return np.pad(sequence, ((0, 0), (0, more)), constant_values=77)

    return replace(batch, seq_id=pad(batch.seq_id, time), seq_tag=pad(batch.seq_tag, tags))


@given(GROUPS)
@settings(max_examples=30, deadline=None)
def test_scores_do_not_depend_on_company(fast_engine: Engine, make_sample: MakeSample, group: tuple[Any, ...]) -> None:
    """A request gets the same probabilities alone, in a batch with strangers, and in any order of them."""
    sizes, seed, shuffle = group
    samples = [make_sample(np.random.default_rng(seed + i), *size) for i, size in enumerate(sizes)]
    order = shuffle.sample(range(len(samples)), len(samples))
    together = answers(fast_engine, samples)
    permuted = answers(fast_engine, [samples[i] for i in order])
    for i, sample in enumerate(samples):
        alone = answers(fast_engine, [sample])[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-6, rtol=0)
        np.testing.assert_allclose(permuted[order.index(i)], alone, atol=1e-6, rtol=0)


@given(SIZES, st.integers(0, 2**32), st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_scores_do_not_depend_on_padding(
    engine: Engine, make_sample: MakeSample, size: tuple[int, ...], seed: int, time: int, tags: int
) -> None:
    """Histories padded to any longer length, beyond the model's maximum too, change no probability."""
    batch = engine.pack([make_sample(np.random.default_rng(seed), *size)])
    assert isinstance(batch, BlockBatch)
    for call in (engine.run, lambda each: engine.explain(each)[0]):
        np.testing.assert_allclose(call(longer(batch, time, tags)), engine.run(batch), atol=1e-6, rtol=0)


@given(SIZES, st.integers(0, 2**32), st.randoms())
@settings(max_examples=30, deadline=None)
def test_candidates_do_not_depend_on_order(
    fast_engine: Engine, make_sample: MakeSample, size: tuple[int, ...], seed: int, shuffle: Any
) -> None:
    """A candidate's probability moves with it when the candidates of a request change places."""
    sample = make_sample(np.random.default_rng(seed), *size)
    order = np.array(shuffle.sample(range(sample.rows), sample.rows))
    moved = replace(sample, target_id=sample.target_id[order], target_tag=sample.target_tag[order])
    np.testing.assert_allclose(
        answers(fast_engine, [moved])[0], answers(fast_engine, [sample])[0][order], atol=1e-6, rtol=0
    )


@given(GROUPS)
@settings(max_examples=20, deadline=None)
def test_fast_engines_agree_with_rows(
    fast_engine: Engine, row_engine: Engine, make_sample: MakeSample, group: tuple[Any, ...]
) -> None:
    """The engines that see each history once answer as the one that repeats it for each candidate."""
    samples = [make_sample(np.random.default_rng(group[1] + i), *size) for i, size in enumerate(group[0])]
    for ours, theirs in zip(answers(fast_engine, samples), answers(row_engine, samples), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "which",
    [
        pytest.param("engine", id="blocks"),
        pytest.param("plain_engine", id="blocks-two-threads"),
        pytest.param("row_engine", id="rows"),
        pytest.param("native_engine", id="native"),
        pytest.param("fake_engine", id="fake"),
    ],
)
def test_engines_keep_the_protocol(request: pytest.FixtureRequest, make_sample: MakeSample, which: str) -> None:
    """Real engines and the fake one take the same batches and answer arrays of the same kind and meaning."""
    engine: Engine = request.getfixturevalue(which)
    samples = [make_sample(np.random.default_rng(i), 3 * i, 2 * i, 7 * i + 1) for i in range(4)]
    batch = engine.pack(samples)
    probability = engine.run(batch)
    assert probability.dtype == np.float32
    for sample, together in zip(samples, batch.split(probability), strict=True):
        assert together.shape == (sample.rows,)
        assert ((together >= 0) & (together <= 1)).all()
        np.testing.assert_allclose(answers(engine, [sample])[0], together, atol=1e-6, rtol=0)
    engine.warm()
    assert engine.name
    if engine.explains:
        again, ids, tags = engine.explain(batch)
        np.testing.assert_allclose(again, probability, atol=1e-6, rtol=0)
        for attention, longest in ((ids, 9), (tags, 6)):  # of the four histories
            assert [each.shape for each in batch.split(attention)] == [(each.rows, longest) for each in samples]


@pytest.mark.parametrize("which", [pytest.param("plain_engine", id="blocks"), pytest.param("row_engine", id="rows")])
def test_explain_without_signature(request: pytest.FixtureRequest, make_sample: MakeSample, which: str) -> None:
    """An engine whose version has no `explain` signature says so, and refuses."""
    engine: Engine = request.getfixturevalue(which)
    assert not engine.explains
    with pytest.raises(TypeError, match="signature"):
        engine.explain(engine.pack([make_sample(np.random.default_rng(1), 2, 2, 2)]))


def run_alone(script: str, folder: Path) -> list[str]:
    """Words that a script prints, in a process where TensorFlow has not been started yet, as the server's."""
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_compiles_under_traffic(exported: Path) -> None:
    """Warming compiles one program, and 100 random batches not a single one more."""
    assert run_alone(TRAFFIC, exported) == ["1", "0"]


def test_compilations_are_counted(tmp_path: Path) -> None:
    """Of a model that compiles for each shape, every new shape counts once, and again in another session."""
    assert run_alone(SHAPES, tmp_path) == ["1", "0", "1", "0", "1", "1"]
