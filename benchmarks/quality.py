"""What each choice of the recipe is worth: trained with several seeds, judged on test rows, with intervals.

    python -m benchmarks.quality --data next_item_samples.parquet --keep scores
    python -m benchmarks.quality --data ml-latest-small --sampling ratings --recipe ratings --keep ratings --only recipe

Each variant is the recipe with some values changed. A variant's figure is the mean over its seeds; its interval, and
that of its distance from the first one listed, is a bootstrap over users of that mean, the same users for both. What a
training said of the test rows is kept in a folder: a run that was stopped goes on, and several may fill one folder.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks import report
from benchmarks.sections import Section
from service.evaluation import Figure
from service.training import Split, intervals
from service.training.baselines import BASELINES
from service.training.data import load
from service.training.recipe import load_recipe
from service.training.sampling import Sampling

METRICS = {"gauc": "GAUC", "auc": "AUC", "logloss": "logloss", "ece": "ECE"}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "mean pooling": {"pooling": "mean"},
    "attention not normalised": {"softmax": False},
    "no order of ids": {"id_knots": 0},
    "ids start by chance": {"id_start": "random"},
    "neither order nor start": {"id_knots": 0, "id_start": "random"},
    "no product": {"product": False},
    "no item bias": {"item_bias": False},
    "separate tables": {"shared_tables": False},
    "Dice": {"attention_activation": "dice", "head_activation": "dice"},
    "mini-batch aware L2": {"l2": 0.1},
}
Scores = dict[int, intervals.UserSums]  # by seed


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared.

    Args:
        data: what `dinserve train` takes.
        sampling: how events become samples.
        recipe: the first variant.
        overrides: values that differ from the recipe in every variant.
        seeds: of each.
        keep: folder of what trainings said.
    """

    data: Path
    sampling: Sampling
    recipe: str
    overrides: dict[str, Any]
    seeds: range
    keep: Path

    def split(self, seed: int) -> Split:
        """The data of one seed: a file of samples is the same for all."""
        return load(self.data, seed, sampling=self.sampling)

    def train(self, names: list[str]) -> None:
        """Train what is not there yet."""
        from service.training.train import train

        for seed in self.seeds:
            split = self.split(seed)
            for name in names:
                path = self._path(name, seed)
                if path.exists() or (name in BASELINES and seed != self.seeds[0] and self.data.is_file()):
                    continue
                if name in BASELINES:
                    self._write(path, BASELINES[name](split.known, split.test))
                    continue
                values = {**self.overrides, **VARIANTS.get(name, {}), "seed": seed, "twin": False}
                trained = train(split, load_recipe(name if name in {"seed", "paper"} else self.recipe, values), quiet)
                self._write(path, trained.predict(split.test))
                found, speed = trained.metrics["din"], trained.training.samples_per_s or 0
                figures = f"GAUC {found.gauc:.4f} AUC {found.auc:.4f} logloss {found.logloss:.4f}"
                print(f"{name}, seed {seed}: {figures}, {trained.training.epochs} epochs, {speed:,.0f} samples/s")

    def read(self, names: list[str]) -> dict[str, Scores]:
        """What there is of each variant."""
        found: dict[str, Scores] = {name: {} for name in names}
        for seed in self.seeds:
            test = self.split(seed).test
            for name in names:
                path = self._path(name, seed)
                if path.exists():
                    found[name][seed] = intervals.make_sums(test.label, np.load(path), test.user)
        return {name: scores for name, scores in found.items() if scores}

    def _path(self, name: str, seed: int) -> Path:
        return self.keep / f"{name.replace(' ', '-')}-{seed}.npy"

    def _write(self, path: Path, score: Any) -> None:
        self.keep.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.save(file, score)


def quiet(_: str) -> None:
    """Report nothing."""


def rows_of(found: dict[str, Scores]) -> Iterator[dict[str, Any]]:
    """A line for each variant: its figures, and how far it is from the first."""
    first, reference = next(iter(found.items()))
    drawn = {name: _drawn(scores) for name, scores in found.items()}
    for name, scores in found.items():
        row: dict[str, Any] = {"": name, "seeds": len(scores)}
        for metric, title in METRICS.items():
            row[title] = _told(intervals.interval(_mean(scores, metric), drawn[name][metric]))
        for metric in ("gauc", "logloss"):
            change = _mean(scores, metric) - _mean(reference, metric)
            told = _told(intervals.interval(change, drawn[name][metric] - drawn[first][metric]), "+.4f")
            row[f"{METRICS[metric]} less the first"] = told if name != first else ""
        yield row


def _mean(scores: Scores, metric: str) -> float:
    return float(np.mean([intervals.point(each)[metric] for each in scores.values()]))


def _drawn(scores: Scores) -> dict[str, Any]:
    """Each metric's mean over the seeds, on users drawn again and again, (draws,)."""
    each = [intervals.drawn(sums, seed=0) for sums in scores.values()]
    return {metric: np.mean([one[metric] for one in each], 0) for metric in METRICS}


def _told(figure: Figure, form: str = ".4f") -> str:
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"


def main() -> None:
    """Train and compare what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sampling", choices=["next-item", "ratings"], default="next-item")
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of every variant")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--only", action="append", help="train these variants; default: all")
    parser.add_argument("--append", action="store_true", help="add the table to RESULTS.md")
    given = parser.parse_args()
    overrides = dict(each.split("=", 1) for each in given.set)
    values = {name: orjson.loads(value) for name, value in overrides.items()}
    study = Study(given.data, given.sampling, given.recipe, values, range(1, given.seeds + 1), given.keep)
    names = [*VARIANTS, "seed", "paper", *BASELINES]
    study.train(given.only or names)
    section = Section(f"{given.data.name}, {given.sampling}, recipe {given.recipe}", list(rows_of(study.read(names))))
    print(report.text(section))
    if given.append:
        report.append(report.machine(), "quality", [section])


if __name__ == "__main__":
    main()
