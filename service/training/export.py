"""Write a trained network as a version: SavedModel with three signatures, golden requests, manifest."""

import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from service import artifact
from service.artifact import (
    LEARNED,
    Activation,
    Architecture,
    BlockSignature,
    Candidates,
    Feature,
    Golden,
    GoldenRequest,
    History,
    Manifest,
    Signatures,
)
from service.batch import Ids, Sample
from service.drift import Scores
from service.seen import make_seen, write_seen
from service.training.din import Din, Rows, graph
from service.training.folded import BLOCK, Blocks, Folded
from service.training.layers import Tensor

Known: TypeAlias = tuple[Ids, Ids]  # ids the model was trained on and the tag of each


@dataclass(frozen=True, slots=True)
class Origin:
    """What the manifest says of where a version comes from."""

    training: artifact.Training | None = None
    metrics: dict[str, artifact.Quality] | None = None
    scores: Scores | None = None  # of the test rows
    met: Ids | None = None  # the distinct ids among the targets and in the histories


def export(din: Din, out: Path, known: Known, origin: Origin) -> Path:
    """Write `din` as the next version under `out` and return its folder.

    The version appears whole or not at all: it is written beside its place and renamed into it.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    try:
        numbered = artifact.versions(out)
        number = int(numbered[-1].name) + 1 if numbered else 1
        written = scratch / str(number)
        serving = Serving(din)
        serving.save(written)
        manifest = _manifest(din, str(number), known, origin)
        if origin.met is not None:
            filtered = make_seen(origin.met)
            write_seen(written, filtered)
            manifest = manifest.model_copy(update={"seen": filtered.seen})
        artifact.write_golden(written, golden(serving, manifest, known))
        artifact.write_manifest(written, manifest)
        for path in (written, *written.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return written.rename(out / str(number))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Serving(tf.Module):
    """A trained network with the three signatures of a version."""

    def __init__(self, din: Din) -> None:
        super().__init__("serving")
        self.din = din
        self._folded = Folded(din)
        ids, tags = (_dtype(feature) for feature in (din.features.id, din.features.tag))
        pad, one, block = (None, None), (None,), (None, BLOCK)
        histories = {
            "seq_id": tf.TensorSpec(pad, ids, "seq_id"),
            "seq_tag": tf.TensorSpec(pad, tags, "seq_tag"),
            "seq_id_length": tf.TensorSpec(one, tf.int32, "seq_id_length"),
            "seq_tag_length": tf.TensorSpec(one, tf.int32, "seq_tag_length"),
        }
        targets = {
            shape: {
                "target_id": tf.TensorSpec(shape, ids, "target_id"),
                "target_tag": tf.TensorSpec(shape, tags, "target_tag"),
            }
            for shape in (one, block)
        }
        blocks = {**histories, **targets[block], "block_request": tf.TensorSpec(one, tf.int32, "block_request")}
        self.functions = {
            "serving_default": graph(self._rows).get_concrete_function(**histories, **targets[one]),
            "score": graph(self._score).get_concrete_function(**blocks),
            "explain": graph(self._explain).get_concrete_function(**blocks),
        }

    def save(self, folder: Path) -> None:
        """Write the SavedModel.

        Raises:
            OSError: the folder cannot be written.
        """
        try:
            tf.saved_model.save(self, str(folder), signatures=self.functions)
        except tf.errors.OpError as error:  # TensorFlow's own, also for a full disk
            reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message)
            raise OSError(f"{folder}: cannot be written: {reason}") from error

    def predict(self, sample: Sample) -> list[float]:
        """The reference answer to one sample, through `serving_default`: probabilities (C,)."""
        count = sample.rows
        answer = self.functions["serving_default"](
            seq_id=_tile(sample.seq_id, count),
            seq_tag=_tile(sample.seq_tag, count),
            seq_id_length=tf.fill([count], len(sample.seq_id)),
            seq_tag_length=tf.fill([count], len(sample.seq_tag)),
            target_id=tf.constant(sample.target_id),
            target_tag=tf.constant(sample.target_tag),
        )
        return [float(each) for each in answer["probability"].numpy()]

    def _rows(self, **inputs: Tensor) -> dict[str, Tensor]:
        hashed = {
            name: values if name.endswith("length") else self.din.bucket(name.rpartition("_")[2], values)
            for name, values in inputs.items()
        }
        return {"probability": tf.sigmoid(self.din.logits(Rows(**hashed)))}

    def _score(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {"probability": self._folded.score(Blocks(**inputs))}

    def _explain(self, **inputs: Tensor) -> dict[str, Tensor]:
        probability, ids, tags = self._folded.explain(Blocks(**inputs))
        return {"probability": probability, "attention_id": ids, "attention_tag": tags}


def golden(serving: Serving, manifest: Manifest, known: Known) -> Golden:
    """Requests that a server gets wrong first, answered by `serving_default`."""
    draw = _Draw(known, manifest)
    most = max(manifest.features.id.max_history, manifest.features.tag.max_history)
    extremes = [-1, 0, -(2**63), 2**63 - 1, 1234567890123456789, -1234567890123456789]
    odd = [each if manifest.features.id.dtype == "int64" else str(each) for each in extremes]
    requests = [
        draw.request("typical", 20, 10),
        draw.request("one candidate", 20, 1),
        draw.request("500 candidates", 20, 500),
        draw.request("empty history", 0, 10),
        draw.request("one item of history", 1, 10),
        draw.request("longest history", most, 20),
        draw.request("longer than the maximum", most + 30, 20),
        draw.request("more tags than ids", 5, 10, tags=13),
        draw.request("more ids than tags", 13, 10, tags=5),
        draw.request("ids without tags", 10, 10, tags=0),
        draw.request("tags without ids", 0, 10, tags=10),
        draw.request("one candidate, one item", 1, 1),
        draw.request("negative and 19-digit ids", 12, 12, ids=odd),
        draw.request("a candidate more than a block", 20, BLOCK + 1),
    ]
    return Golden(
        requests=[
            each.model_copy(update={"probabilities": serving.predict(artifact.golden_sample(manifest, each))})
            for each in requests
        ]
    )


class _Draw:
    """Draws golden requests from what the model knows; the same ones every time."""

    def __init__(self, known: Known, manifest: Manifest) -> None:
        self.known, self.manifest = known, manifest
        self.rng = np.random.default_rng(0)

    def request(
        self, name: str, history: int, candidates: int, *, tags: int | None = None, ids: Any = None
    ) -> GoldenRequest:
        past_ids, past_tags = self._items(history, ids)
        if tags is not None:
            past_tags = self._items(tags)[1]
        these_ids, these_tags = self._items(candidates, ids)
        return GoldenRequest(
            name=name,
            history=History(ids=past_ids, tags=past_tags),
            candidates=Candidates(ids=these_ids, tags=these_tags),
            probabilities=[],
        )

    def _items(self, count: int, ids: Any = None) -> tuple[Any, Any]:
        picked = self.rng.integers(0, len(self.known[0]), count)
        columns = [_plain(column[picked]) for column in self.known]
        if ids is not None:
            columns[0] = [ids[i % len(ids)] for i in range(count)]
        return columns[0], columns[1]


def _plain(values: Ids) -> list[Any]:
    return [each.decode() if isinstance(each, bytes) else int(each) for each in values]


def _manifest(din: Din, version: str, known: Known, origin: Origin) -> Manifest:
    tag = din.features.tag.model_copy(update={"default": _most_frequent(known[1])})
    block = {name: BlockSignature(name=name, block=BLOCK) for name in ("score", "explain")}
    return Manifest(
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        features=din.features.model_copy(update={"tag": tag}),
        architecture=din.architecture,
        variables=variable_keys(din.architecture, din.maps),
        signatures=Signatures(**block),
        training=origin.training,
        metrics=origin.metrics or {},
        scores=origin.scores,
    )


def _most_frequent(values: Ids) -> int | str:
    """The value that most of (N,), at least one, have; of several the lowest."""
    unique, counts = np.unique(values, return_counts=True)
    most: int | str = _plain(unique)[counts.argmax()]
    return most


def variable_keys(architecture: Architecture, maps: Collection[str] = ()) -> dict[str, str]:
    """Where `Serving` keeps each variable in its checkpoint, by role; `maps` names the pairs that have a map."""
    targets = "tables" if architecture.shared_tables else "target_tables"
    keys: dict[str, str] = {}
    for name in ("id", "tag"):
        keys |= {f"table_{name}": f"din/tables/{name}", f"target_table_{name}": f"din/{targets}/{name}"}
        if name in maps:
            keys[f"rows_{name}"] = f"din/maps/{name}"
        if architecture.pooling == "attention":
            layers, activation = len(architecture.attention_hidden), architecture.attention_activation
            keys |= _mlp_keys(f"attention_{name}", f"din/units/{name}/mlp", layers, activation)
    if architecture.item_bias:
        keys["item_bias"] = "din/bias_id"
    keys |= {f"norm.{part}": f"din/norm/{part}" for part in ("gamma", "beta", "mean", "variance")}
    return keys | _mlp_keys("head", "din/head", len(architecture.head_hidden), architecture.head_activation)


def _mlp_keys(role: str, key: str, hidden: int, activation: Activation) -> dict[str, str]:
    """The same for the `hidden` layers of an `Mlp` and its last one."""
    keys: dict[str, str] = {}
    for i in range(hidden + 1):
        keys |= {f"{role}.{i}.{part}": f"{key}/layers/{i}/{part}" for part in ("kernel", "bias")}
        if i < hidden:
            keys |= {f"{role}.{i}.{part}": f"{key}/layers/{i}/activation/{part}" for part in LEARNED[activation]}
    return keys


def _dtype(feature: Feature) -> Any:
    return tf.int64 if feature.dtype == "int64" else tf.string


def _tile(values: Ids, count: int) -> Tensor:
    """Repeat a sequence (T,) for each row, (count, T)."""
    return tf.tile(tf.constant(values)[None], (count, 1))
