"""What most teams write around a SavedModel, as well as it is usually written: the server that ours is compared with.

FastAPI, pydantic models, `tf.saved_model.load`, `serving_default`, the history tiled per candidate in numpy. Same wire
as ours for POST /score; `latency_ms` tells only the model call. Some teams write a plain `def` endpoint, which runs in
FastAPI's thread pool, some an `async def` one, which runs the model on the event loop: /score is the first,
/score-inline the second, and the comparison takes whichever is faster at what it measures.

python -m benchmarks.baseline_server VERSION_FOLDER PORT
"""

import argparse
import time
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel

from service import artifact

IdT = TypeVar("IdT", bound=int | str)
TagT = TypeVar("TagT", bound=int | str)


class Columns(BaseModel, Generic[IdT, TagT]):
    """Ids and tags, as two columns."""

    ids: list[IdT]
    tags: list[TagT]


class ScoreRequest(BaseModel, Generic[IdT, TagT]):
    """One user's history and the candidates to score against it."""

    history: Columns[IdT, TagT]
    candidates: Columns[IdT, TagT]


class ScoreResponse(BaseModel):
    """Click probabilities, in the order of the candidates."""

    probabilities: list[float]
    latency_ms: dict[str, float]


class Model:
    """A version's `serving_default`."""

    def __init__(self, folder: Path) -> None:
        self.features = artifact.read_manifest(folder).features
        self._loaded = tf.saved_model.load(str(folder))  # kept: the signature does not keep its variables
        self._signature = self._loaded.signatures["serving_default"]

    def predict(self, request: ScoreRequest[Any, Any]) -> tuple[list[float], float]:
        """Probabilities (C,), and how long the model took, in seconds."""
        history, candidates, count = request.history, request.candidates, len(request.candidates.ids)
        ids = history.ids[-self.features.id.max_history :]
        tags = history.tags[-self.features.tag.max_history :]
        inputs = {
            "seq_id": _tile(ids, self.features.id.dtype, count),
            "seq_tag": _tile(tags, self.features.tag.dtype, count),
            "seq_id_length": np.full(count, len(ids), np.int32),
            "seq_tag_length": np.full(count, len(tags), np.int32),
            "target_id": _array(candidates.ids, self.features.id.dtype),
            "target_tag": _array(candidates.tags, self.features.tag.dtype),
        }
        started = time.perf_counter()
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        probabilities: list[float] = self._signature(**tensors)["probability"].numpy().tolist()
        return probabilities, time.perf_counter() - started

    def warm(self) -> None:
        """Run the sizes that are measured, so that no request pays for a first time."""
        for candidates, history in ((1, 1), (10, 20), (100, 50), (500, 50), (500, 200)):
            self.predict(_any_request(self.features, candidates, history))


def _array(values: list[Any], dtype: str) -> NDArray[Any]:
    return np.array(values, np.int64 if dtype == "int64" else object)


def _tile(values: list[Any], dtype: str, count: int) -> NDArray[Any]:
    """Repeat a sequence (T,) for each candidate, (C, T)."""
    return np.tile(_array(values, dtype), (count, 1))


def _any_request(features: artifact.Features, candidates: int, history: int) -> ScoreRequest[Any, Any]:
    def columns(count: int) -> Columns[Any, Any]:
        ids, tags = ([1 if feature.dtype == "int64" else "1"] * count for feature in (features.id, features.tag))
        return Columns(ids=ids, tags=tags)

    return ScoreRequest(history=columns(history), candidates=columns(candidates))


def create_app(model: Model) -> FastAPI:
    """Build the server around a model."""
    app = FastAPI()
    types = [int if feature.dtype == "int64" else str for feature in (model.features.id, model.features.tag)]
    body: Any = ScoreRequest[types[0], types[1]]  # type: ignore[valid-type]  # chosen by the manifest

    @app.post("/score")
    def score(request: body) -> ScoreResponse:
        """Score in the thread pool."""
        probabilities, infer_s = model.predict(request)
        return ScoreResponse(probabilities=probabilities, latency_ms={"infer": infer_s * 1000})

    @app.post("/score-inline")
    async def score_inline(request: body) -> ScoreResponse:
        """Score on the event loop."""
        return score(request)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Ready: the model was warm before the server started."""
        return {"status": "ok"}

    return app


def main() -> None:
    """Load, warm, serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a version's folder")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = Model(options.folder)
    model.warm()
    uvicorn.run(
        create_app(model),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
