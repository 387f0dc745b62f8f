"""Samples of a made-up world, in which the probability of each click is known: what a perfect model would say.

Items have a tag, a quality and a place in a space of tastes, near the place of their tag. Whoever clicked on things
akin to an item, be they few in a long history, is likely to click on it too:

    probability = sigmoid(BASE + quality + PULL * appeal),
    appeal = sum_t w_t s_t / sum_t w_t  with  w_t = exp(SHARPNESS * s_t),

s_t being the cosine of the places of the target and of the history's entry t; without a history the appeal is 0. So a
mean over the history does not do: what matters are the entries that are akin to the target.

Dimension letters: N samples, U users, S samples of a user, T history, V items, D dimensions of taste.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from service.artifact import Quality
from service.errors import DataError
from service.training.evaluate import quality

Doubles: TypeAlias = NDArray[np.float64]

PART_ROWS = 1 << 16  # of a file: with histories of 50, 50 MB in memory
HELD_ROWS = 100_000  # the most to validate by, and to test by: they are held in memory
MOST_OF_USER = 1000  # samples
TRUTH = "simulation.json"

# Chosen so that about a fifth is clicked, and that the history tells more than an item's quality does.
TASTES = 8
SPREAD = 0.25  # of the items of a tag around its place
QUALITY = 0.7  # standard deviation
BASE, PULL, SHARPNESS = -3.7, 4.0, 4.0
INTERESTS = 3  # tags that a user begins with
FOCUS = 0.5  # share of targets that are of them
HEAD = 10  # the popularity of the r-th item is 1 / (r + HEAD)


@dataclass(frozen=True, slots=True)
class Size:
    """What to simulate; the same size, the same files."""

    samples: int
    users: int
    items: int
    tags: int
    max_history: int = 50
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was written, and how well the true probabilities do on its test rows: no model does better, but by luck."""

    rows: dict[str, int]  # of each split
    click_rate: float  # of the test rows
    oracle: Quality


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """What users met, S samples each, at whose time a user had clicked `timeline[u, :stop[u, s]]`."""

    timeline: NDArray[np.int64]  # (U, longest)
    stop: NDArray[np.int64]  # (U, S)
    target: NDArray[np.int64]  # (U, S)
    probability: Doubles  # (U, S)
    label: NDArray[np.bool_]  # (U, S)


class World:
    """Items numbered from 0, of tags numbered from 0."""

    def __init__(self, items: int, tags: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.tag = rng.integers(0, tags, items)  # (V,)
        tag_place = _unit(rng.normal(size=(tags, TASTES)))
        self.place = _unit(tag_place[self.tag] + SPREAD * rng.normal(size=(items, TASTES)))  # (V, D)
        self.quality = rng.normal(0, QUALITY, items)  # (V,)
        weight = 1 / (rng.permutation(items) + 1 + HEAD)
        self._by_tag = np.argsort(self.tag, kind="stable")
        self._sum = np.concatenate([[0], np.cumsum(weight[self._by_tag])])  # (V+1,) popularity of the items before
        self._tag_first = np.searchsorted(self.tag[self._by_tag], np.arange(tags + 1))

    def probability(self, history: NDArray[np.int64], length: NDArray[np.int64], target: NDArray[np.int64]) -> Doubles:
        """True click probabilities (N,) of targets (N,) after histories (N, T), of whose columns the last count."""
        likeness = np.einsum("ntd,nd->nt", self.place[history], self.place[target])
        real = np.arange(history.shape[1]) >= history.shape[1] - length[:, None]
        weight = np.exp(SHARPNESS * likeness) * real
        appeal = (weight * likeness).sum(1) / np.maximum(weight.sum(1), np.finfo(float).tiny)
        logit = BASE + self.quality[target] + PULL * appeal
        return np.asarray(1 / (1 + np.exp(-logit)))

    def draw(self, rng: np.random.Generator, number: int) -> NDArray[np.int64]:
        """Items (number,) by popularity."""
        return self._at(rng.random(number) * self._sum[-1])

    def draw_of(self, rng: np.random.Generator, tag: NDArray[np.int64]) -> NDArray[np.int64]:
        """Items of the tags (n,), each of which has items, by popularity, (n,)."""
        first, stop = self._tag_first[tag], self._tag_first[tag + 1]
        low, high = self._sum[first], self._sum[stop]
        drawn = np.searchsorted(self._sum, low + rng.random(len(tag)) * (high - low), side="right") - 1
        return np.asarray(self._by_tag[np.clip(drawn, first, stop - 1)])

    def _at(self, mass: Doubles) -> NDArray[np.int64]:
        drawn = np.searchsorted(self._sum, mass, side="right") - 1
        return np.asarray(self._by_tag[np.clip(drawn, 0, len(self._by_tag) - 1)])


def live(world: World, rng: np.random.Generator, users: int, each: int, max_history: int) -> Users:
    """Let users meet `each` items one after the other, and click by the world's probabilities."""
    everyone = np.arange(users)
    interests = world.tag[world.draw(rng, users * INTERESTS)].reshape(users, INTERESTS)

    def of_interest() -> NDArray[np.int64]:
        return world.draw_of(rng, interests[everyone, rng.integers(0, INTERESTS, users)])

    start = max_history  # where the timeline begins: what is before is never read
    timeline = np.zeros((users, start + max_history + each), np.int64)
    stop = start + rng.integers(0, max_history + 1, users)  # (U,) some are new, others long known
    for at in range(max_history):
        timeline[:, start + at] = of_interest()
    met = Users(
        timeline, *(np.zeros((users, each), dtype) for dtype in (np.int64, np.int64, np.float64, bool))
    )  # filled below
    window = np.arange(-max_history, 0)
    for step in range(each):
        target = np.where(rng.random(users) < FOCUS, of_interest(), world.draw(rng, users))
        history = timeline[everyone[:, None], stop[:, None] + window]  # (U, T)
        probability = world.probability(history, np.minimum(stop - start, max_history), target)
        label = rng.random(users) < probability
        met.stop[:, step], met.target[:, step] = stop, target
        met.probability[:, step], met.label[:, step] = probability, label
        timeline[everyone[label], stop[label]] = target[label]
        stop = stop + label
    return met


def write(out: Path, size: Size) -> Simulated:
    """Write a folder of parts (`stream`) with the column `probability`, one part after the other in memory.

    Test and validation rows are of users of their own, a tenth of the samples each and `HELD_ROWS` at most. Ids and
    tags are numbered from 1. Beside the parts, `simulation.json` says what was simulated and what the truth scores.

    Raises:
        DataError: `out` is there and not empty, a user would have too many samples, or the test rows are of one class.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already, and no empty folder")
    each = -(-size.samples // size.users)
    if each > MOST_OF_USER:
        raise DataError(f"{each} samples of each user are too many: {MOST_OF_USER} at most, so take more users")
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        simulated = _write_parts(aside, size, each)
        facts = asdict(size) | {"rows": simulated.rows, "click_rate": simulated.click_rate}
        text = json.dumps(facts | {"oracle": simulated.oracle.model_dump()}, indent=2)
        (aside / TRUTH).write_text(text + "\n")
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return simulated


def _write_parts(folder: Path, size: Size, each: int) -> Simulated:
    world = World(size.items, size.tags, size.seed)
    plan = list(_plan(size.samples, each))
    tests, rows, first_user = [], dict.fromkeys(("train", "validation", "test"), 0), 1
    for number, (split, part_rows) in enumerate(tqdm(plan, desc="simulating", unit="part", disable=None)):
        users = -(-part_rows // each)
        rng = np.random.default_rng([size.seed, 1, number])
        frame = _frame(world, live(world, rng, users, each, size.max_history), size.max_history)[:part_rows]
        frame = frame.with_columns(user=pl.col("user") + first_user, split=pl.lit(split))
        frame.write_parquet(folder / f"part-{split}-{number:06}.parquet", compression="zstd")
        rows[split] += part_rows
        first_user += users
        if split == "test":
            tests.append(frame.select("label", "probability", "user"))
    test = pl.concat(tests)
    oracle = quality(*(test[name].to_numpy() for name in ("label", "probability", "user")))
    return Simulated(rows, float(test["label"].to_numpy().mean()), oracle)


def _plan(samples: int, each: int) -> Iterator[tuple[str, int]]:
    """Split and rows of each part, of whole users but for the last of a split."""
    most = PART_ROWS // each * each
    held = max(1, min(samples // 10, HELD_ROWS))
    for split, left in (("train", samples - 2 * held), ("validation", held), ("test", held)):
        for start in range(0, left, most):
            yield split, min(most, left - start)


def _frame(world: World, met: Users, max_history: int) -> pl.DataFrame:
    """Samples as rows, by user (from 0) and time."""
    users, each = met.target.shape
    user = np.repeat(np.arange(users), each)
    stop, target = met.stop.ravel(), met.target.ravel()
    history = met.timeline[user[:, None], stop[:, None] + np.arange(-max_history, 0)]  # (N, T)
    frame = pl.DataFrame(
        {
            "user": user,
            "history_ids": history + 1,
            "history_tags": world.tag[history] + 1,
            "id": target + 1,
            "tag": world.tag[target] + 1,
            "label": met.label.ravel().astype(np.int8),
            "probability": met.probability.ravel(),
        }
    )
    length = pl.lit(pl.Series(np.minimum(stop - max_history, max_history)))
    return frame.with_columns(pl.col("history_ids", "history_tags").arr.to_list().list.tail(length))


def _unit(vectors: Doubles) -> Doubles:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
