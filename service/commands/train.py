"""`dinserve train`: from data and a recipe to the next version of a model folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from service.training.recipe import DEFAULT, NAMES, fields, load_recipe


def _to_sizes(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Make "32,16" into (32, 16)."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", text):
        raise click.BadParameter(f"{text!r} is no list of layer sizes such as 32,16")
    return tuple(map(int, text.split(",")))


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every value of a recipe; a flag not given leaves the value to the recipe."""
    for name, field, description in reversed(list(fields())):
        flag, kind = "--" + name.replace("_", "-"), type(field.default)
        options: dict[str, Any] = {"default": None, "help": description}
        if kind is bool:
            flag = {"shared_tables": "--shared-tables/--separate-tables"}.get(name, f"{flag}/--no-{flag[2:]}")
        elif kind is tuple:
            options |= {"callback": _to_sizes, "metavar": "SIZES"}
        elif kind is str:
            options["type"] = click.Choice(get_args(field.annotation))
        else:
            options["type"] = kind
        command = click.option(flag, name, **options)(command)
    return command


@click.command()
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="MovieLens folder, interactions or samples"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="model folder the next version goes into")
@click.option("--recipe", "source", default=DEFAULT, show_default=True, help=f"{', '.join(NAMES)}, or a TOML file")
@click.option("--logs", type=click.Path(path_type=Path), help="folder for curves that TensorBoard shows")
@click.option("--checkpoints", type=click.Path(path_type=Path), help="folder for checkpoints [OUT/.checkpoints]")
@click.option("--checkpoint-s", default=60.0, show_default=True, type=click.FloatRange(0), help="between checkpoints")
@click.option("--resume", is_flag=True, help="go on where a training with the same options was killed")
@_recipe_options
def train(
    data: Path,
    out: Path,
    source: str,
    logs: Path | None,
    checkpoints: Path | None,
    checkpoint_s: float,
    *,
    resume: bool,
    **flags: Any,
) -> None:
    """Train a DIN on DATA, compare it with its baselines, and export it as the next version.

    A flag that is not given leaves its value to the recipe.
    """
    recipe = load_recipe(source, {name: value for name, value in flags.items() if value is not None})
    from service.training.data import load

    split = load(data, recipe.seed, recipe.max_history, recipe.sampling, recipe.negatives)
    rows = f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test rows"
    click.echo(f"{split.source}: {rows}")

    # TensorFlow takes seconds to import: what is wrong with the data is said before that.
    from service.training.checkpoints import Folder
    from service.training.export import Origin, export
    from service.training.parts import met_ids
    from service.training.train import Keeping, known_items
    from service.training.train import train as run

    kept = Folder(checkpoints or out / ".checkpoints", checkpoint_s)
    trained = run(split, recipe, click.echo, Keeping(kept, resume, logs))
    click.echo(f"{'test rows':12}{'AUC':>8}{'GAUC':>8}{'logloss':>9}")
    for name, each in trained.metrics.items():
        click.echo(f"{name:12}{each.auc:8.4f}{each.gauc:8.4f}{each.logloss:9.4f}")
    origin = Origin(trained.training, trained.metrics, trained.scores, met_ids(split.known))
    folder = export(trained.din, out, known_items(split.known), origin)
    kept.remove()
    click.echo(f"exported {folder}")
