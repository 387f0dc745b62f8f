"""`dinserve compare`: which of two versions on disk is better, and whether that is more than luck."""

from pathlib import Path
from typing import Any

import click

from service.commands.evaluate import judged, load_split, sound_manifest


@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@judged
def compare(first: Path, second: Path, draws: int, **options: Any) -> None:
    """Compare the version folders FIRST and SECOND on the same test rows of DATA.

    The change is SECOND less FIRST; its interval is of the same drawn users for both, and so tells smaller differences
    from luck than two intervals apart do. The seed is by default that of FIRST's
    training. Nothing is written.
    """
    manifests = [sound_manifest(first), sound_manifest(second)]
    split, seed = load_split(manifests, **options)
    from service.training.compare import differences
    from service.training.markdown import TITLES, describe
    from service.training.scored import score

    one, other = (score(path, each, split.test) for path, each in zip((first, second), manifests, strict=True))
    click.echo(f"{split.source}: {len(split.test)} test rows")
    click.echo(f"{'':10}{'first':>9}{'second':>9}  {'change':30}better")
    for metric, each in differences(split.test, one, other, seed, draws).items():
        line = f"{TITLES[metric]:10}{each.first:9.4f}{each.second:9.4f}  {describe(each.change):30}{each.better or '-'}"
        click.echo(line)
