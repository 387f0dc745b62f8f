"""Why candidates scored so: the attention paid to the history, and what each score is without the most attended entry.

Dimension letters as in `batch`, and E explained candidates. Attention says where the network looked, not what caused
the score; the score without an entry is the network's own answer to another history.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.batch import Floats, Ids, Sample


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What is said about the explained candidates, each in its place."""

    candidates: NDArray[np.intp]  # (E,) indexes among the request's candidates
    ids: Floats  # (E, T) weights, T and U what the model kept of the history
    tags: Floats  # (E, U)
    removed: NDArray[np.intp] | None  # (E,) place in the history's ids of the highest weight; None: there are no ids
    without: Floats | None  # (E,) probability with that entry removed


def rank(probabilities: Floats, top_k: int) -> NDArray[np.intp]:
    """Indexes of the `top_k` best, best first; of equals the earlier candidate first."""
    return np.argsort(-probabilities, kind="stable")[:top_k]


def choose(probabilities: Floats, top_k: int | None, most: int) -> NDArray[np.intp]:
    """Indexes of the candidates to explain: the ranking, or without one all, the first `most` of them."""
    if top_k is None:
        return np.arange(min(len(probabilities), most))
    return rank(probabilities, min(top_k, most))


def take(sample: Sample, index: NDArray[np.intp]) -> Sample:
    """The candidates at `index` (E,), with the whole history."""
    return Sample(sample.seq_id, sample.seq_tag, sample.target_id[index], sample.target_tag[index])


def reduce(sample: Sample, removed: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[Sample]]:
    """Take out of each candidate's history the id at its place in `removed` (C,), and its tag where each id has one.

    Candidates that lose the same entry share a sample; the array (C,) says which candidates the samples' rows are.
    """
    paired = len(sample.seq_id) == len(sample.seq_tag)
    order, samples = [], []
    for place in np.unique(removed):
        index = np.flatnonzero(removed == place)
        seq_tag = _drop(sample.seq_tag, place) if paired else sample.seq_tag
        order.append(index)
        samples.append(take(Sample(_drop(sample.seq_id, place), seq_tag, sample.target_id, sample.target_tag), index))
    return np.concatenate(order), samples


def _drop(values: Ids, place: int) -> Ids:
    return np.concatenate((values[:place], values[place + 1 :]))  # np.delete takes five times as long
