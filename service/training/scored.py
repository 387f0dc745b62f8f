"""Scores samples with a version on disk, through its own signature: what is evaluated is what would be served."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.artifact import Manifest
from service.batch import Floats, Sample
from service.errors import DataError
from service.training import Samples

REQUESTS = 64  # in a call
MOST_CANDIDATES = 4096  # of a request; more rows with one history are several


def score(version: Path, manifest: Manifest, samples: Samples) -> Floats:
    """Click probabilities (N,) of `samples`, in order. Rows with the same history make one request.

    Raises:
        ArtifactError: the version does not load.
        DataError: its ids or tags are of another type than the data's, or it answers with no probability.
    """
    check_dtypes(manifest, samples)
    from service.engine import tensorflow  # seconds, which what is wrong with the data does not wait for

    engine = tensorflow.load(version, manifest, intra_op_threads=2)
    try:
        probability = np.full(len(samples), np.nan, np.float32)
        groups = list(_groups(samples))
        for start in tqdm(range(0, len(groups), REQUESTS), desc="scoring", unit="batch", disable=None, leave=False):
            part = groups[start : start + REQUESTS]
            batch = engine.pack([_request(manifest, samples, group) for group in part])
            for group, answer in zip(part, batch.split(engine.run(batch)), strict=True):
                probability[group] = answer
    finally:
        engine.compilations()  # forgets the programs: the next version would run what was compiled for this one
        engine.close()
    if not np.all((probability >= 0) & (probability <= 1)):  # NaN fails too
        raise DataError(f"{version}: answers with something that is no probability")
    return probability


def check_dtypes(manifest: Manifest, samples: Samples) -> None:
    """Raise DataError where the version takes ids or tags of another type than `samples` has."""
    for name, values in (("id", samples.target_id), ("tag", samples.target_tag)):
        taken, given = getattr(manifest.features, name).dtype, "string" if values.dtype == object else "int64"
        if taken != given:
            raise DataError(f"version {manifest.version} takes {name}s as {taken}, those of the data are {given}")


def _groups(samples: Samples) -> Iterator[NDArray[np.int64]]:
    """Places of the rows that have the same history, the shortest histories first: a batch is padded to its longest."""
    columns = (samples.tag_stop, samples.tag_start, samples.id_stop, samples.id_start)
    order = np.lexsort((*columns, samples.id_stop - samples.id_start))
    new = np.logical_or.reduce([column[order][1:] != column[order][:-1] for column in columns])
    for group in np.split(order, np.flatnonzero(new) + 1):
        yield from np.split(group, range(MOST_CANDIDATES, len(group), MOST_CANDIDATES))


def _request(manifest: Manifest, samples: Samples, group: NDArray[np.int64]) -> Sample:
    """One request, its history cut to what the version reads."""
    first, features = group[0], manifest.features
    ids = samples.event_id[samples.id_start[first] : samples.id_stop[first]]
    tags = samples.event_tag[samples.tag_start[first] : samples.tag_stop[first]]
    return Sample(
        ids[-features.id.max_history :],
        tags[-features.tag.max_history :],
        samples.target_id[group],
        samples.target_tag[group],
    )
