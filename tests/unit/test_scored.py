from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifact import Manifest
from service.engine import tensorflow
from service.errors import DataError
from service.training import scored
from tests.fakes import FakeEngine
from tests.labelled import make_split


@pytest.mark.parametrize("most", [pytest.param(2, id="split-requests"), pytest.param(4096, id="whole-requests")])
def test_scores_are_those_of_single_requests(
    exported: Path, manifest: Manifest, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows keep their order, and each gets what the version answers to it alone, however they are grouped."""
    monkeypatch.setattr(scored, "MOST_CANDIDATES", most)
    samples = make_split().test
    samples = samples.take(np.random.default_rng(1).integers(0, len(samples), 50))  # some histories several times
    found = scored.score(exported, manifest, samples)
    engine = tensorflow.RowEngine(tensorflow.SavedModel(exported), manifest)
    for row, probability in enumerate(found):
        batch = engine.pack([scored._request(manifest, samples, np.array([row]))])
        assert probability == pytest.approx(float(engine.run(batch)[0, 0]), abs=1e-5)
    engine.close()


def test_history_is_cut_to_the_versions(manifest: Manifest) -> None:
    """A version reads the newest of a history, each feature as many as its own manifest says."""
    features = manifest.features
    features = features.model_copy(update={"id": features.id.model_copy(update={"max_history": 2})})
    samples = make_split().test
    longest = int(np.argmax(samples.id_stop - samples.id_start))
    request = scored._request(manifest.model_copy(update={"features": features}), samples, np.array([longest]))
    whole = samples.event_id[samples.id_start[longest] : samples.id_stop[longest]]
    assert request.seq_id.tolist() == whole[-2:].tolist()
    assert request.seq_tag.tolist() == whole.tolist()


def test_other_types_are_refused(exported: Path, manifest: Manifest) -> None:
    """Data whose ids are text is no data for a version that takes integers, and the error names both."""
    samples = make_split().test
    text: Any = samples.take(np.arange(len(samples)))
    object.__setattr__(text, "target_id", np.array([b"a"] * len(samples), object))
    with pytest.raises(DataError, match="version 1 takes ids as int64, those of the data are string"):
        scored.score(exported, manifest, text)


def test_answers_must_be_probabilities(exported: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that answers NaN is refused by its folder, and closed."""
    engine = FakeEngine()
    monkeypatch.setattr(engine, "run", lambda batch: np.full(batch.target_id.shape, np.nan))
    monkeypatch.setattr(tensorflow, "load", lambda *_, **__: engine)
    with pytest.raises(DataError, match="no probability"):
        scored.score(exported, manifest, make_split().test)
    assert engine.closed
