"""`dinserve simulate`: training data with known true click probabilities."""

from pathlib import Path

import click


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder to write, new or empty")
@click.option("--samples", default=1_000_000, show_default=True, type=click.IntRange(100), help="rows in all")
@click.option("--users", default=50_000, show_default=True, type=click.IntRange(10), help="users in all, about")
@click.option("--items", default=10_000, show_default=True, type=click.IntRange(1), help="items in all")
@click.option("--tags", default=40, show_default=True, type=click.IntRange(1), help="tags of the items")
@click.option("--max-history", default=50, show_default=True, type=click.IntRange(1, 1000), help="longest history")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="the same seed, the same samples")
def simulate(out: Path, samples: int, users: int, items: int, tags: int, max_history: int, seed: int) -> None:
    """Write samples for `train --data OUT` whose true click probabilities are known, of any number.

    OUT becomes a folder of part-*.parquet. What is told of the oracle is how well the true probabilities themselves
    rank and predict its test rows.
    """
    from service.training.simulate import Size, write

    simulated = write(out, Size(samples, users, items, tags, max_history, seed))
    rows = ", ".join(f"{number} {split}" for split, number in simulated.rows.items())
    click.echo(f"{out}: {rows} rows; of the test rows {simulated.click_rate:.4f} are clicked")
    oracle = simulated.oracle
    click.echo(f"oracle: AUC {oracle.auc:.4f} GAUC {oracle.gauc:.4f} logloss {oracle.logloss:.4f}")
