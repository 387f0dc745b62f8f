"""How near a trained network comes to the true click probabilities, in made-up worlds where these are known.

    python -m benchmarks.simulated --keep worlds                       # five worlds of 500 items, some 25 minutes
    python -m benchmarks.simulated --keep worlds --items 2000 --world 1

Each world is simulated, a network trained on its samples, and both it and the truth are judged on the test rows. What
was found is kept in a folder: a run that was stopped goes on, and several may fill one folder.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy import stats

from benchmarks import report
from benchmarks.sections import Finding, Section
from service.training import evaluate
from service.training.data import load
from service.training.recipe import load_recipe
from service.training.simulate import Size, write

CHANGES = {  # of the recipe `best`: no item is rare, and the samples are too many to be learnt by heart
    "dimension": 16,
    "dropout": 0.0,
    "replace_rate": 0.0,
    "head_start": "product",
    "epochs": 4,
    "refit": False,
    "twin": False,
}
FIGURES = ("auc", "oracle", "less", "ece")


@dataclass(frozen=True, slots=True)
class Study:
    """Worlds of one size.

    Args:
        samples: of each world.
        items: likewise.
        values: of the recipe `best` that are replaced.
        keep: folder of samples and findings.
    """

    samples: int
    items: int
    values: dict[str, Any]
    keep: Path

    def found(self, world: int) -> dict[str, float]:
        """AUC and ECE of the network, AUC of the truth, and what the network has less; measured if it is not kept."""
        path = self.keep / f"{self.items}-{self.samples}-{world}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}")
            aside.write_bytes(orjson.dumps(self._measure(world), option=orjson.OPT_SERIALIZE_NUMPY))
            aside.replace(path)
        read: dict[str, float] = orjson.loads(path.read_bytes())
        return read

    def _measure(self, world: int) -> dict[str, float]:
        from service.training.train import train

        folder = self.keep / f"world-{self.items}-{self.samples}-{world}"
        size = Size(self.samples, self.samples // 20, self.items, 40, seed=world)
        oracle = write(folder, size).oracle
        split = load(folder, world)
        trained = train(split, load_recipe("best", {**CHANGES, **self.values, "seed": world}))
        auc = trained.metrics["din"].auc
        ece = evaluate.ece(split.test.label, trained.predict(split.test))
        return {"auc": auc, "oracle": oracle.auc, "less": oracle.auc - auc, "ece": ece}


def mean(values: list[float]) -> str:
    """The mean, and its interval by Student's distribution where there are two values or more."""
    if len(values) < 2:
        return f"{values[0]:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.4f} [{np.mean(values) - half:.4f}, {np.mean(values) + half:.4f}]"


def section(study: Study, worlds: list[int]) -> Section:
    """A line for each world, and one for all."""
    found = {world: study.found(world) for world in worlds}
    of = {name: [each[name] for each in found.values()] for name in FIGURES}
    rows = [{"world": str(world)} | {name: f"{each[name]:.4f}" for name in FIGURES} for world, each in found.items()]
    rows.append({"world": "mean"} | {name: mean(values) for name, values in of.items()})
    named = f"{study.samples:,} samples of {study.items:,} items"
    return Section(
        f"Against the truth, {named}",
        rows,
        [
            Finding(f"{named}: AUC less than the truth's", float(np.mean(of["less"])), 0.01, at_least=False, unit=""),
            Finding(f"{named}: ECE", float(np.mean(of["ece"])), 0.01, at_least=False, unit=""),
        ],
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--world", type=int, action="append", help="seeds; default: 1 to 5")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    parser.add_argument("--append", action="store_true", help="add the table to RESULTS.md")
    given = parser.parse_args()
    values = {name: orjson.loads(value) for name, value in (each.split("=", 1) for each in given.set)}
    study = Study(given.samples, given.items, values, given.keep)
    done = section(study, given.world or list(range(1, 6)))
    print(f"{report.text(done)}\n\n{report.targets(done.findings)}")
    if given.append:
        report.append(report.machine(), "simulated", [done])


if __name__ == "__main__":
    main()
