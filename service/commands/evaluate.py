"""`dinserve evaluate`: how good a version on disk is, told in its own folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import artifact

if TYPE_CHECKING:  # imported where it is used, so that every command starts fast
    from service.training import Split

SAMPLING = click.Choice(["next-item", "ratings"])


def judged(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what versions are judged by."""
    for option in (
        click.option("--draws", default=1000, show_default=True, type=click.IntRange(100), help="of the bootstrap"),
        click.option("--seed", type=click.IntRange(0), help="of negatives and intervals; default: the training's"),
        click.option("--negatives", type=click.IntRange(1), help="drawn for each positive; default: 1"),
        click.option("--sampling", type=SAMPLING, help="how events become samples; default: next-item"),
        click.option("--data", required=True, type=click.Path(path_type=Path), help="what `train` takes"),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--model", "version", required=True, type=click.Path(path_type=Path), help="folder of the version")
@judged
def evaluate(version: Path, draws: int, **options: Any) -> None:
    """Judge a version by the test rows of DATA, beside its baselines, with intervals.

    The report goes to `report/` in the version's folder, the headline into its manifest, where servers that load the
    version from then on find it.
    """
    manifest = sound_manifest(version)
    split, seed = load_split([manifest], **options)
    from service.training.markdown import TITLES, describe
    from service.training.publish import publish
    from service.training.report import make_report
    from service.training.scored import score

    report = make_report(manifest, split, score(version, manifest, split.test), seed, draws)
    click.echo(f"{split.source}: {report.evaluation.rows} test rows of {report.evaluation.users} users")
    click.echo(f"{'':20}" + "".join(f"{title:>27}" for title in TITLES.values()))
    for name, figures in {f"version {manifest.version}": report.evaluation.figures, **report.baselines}.items():
        click.echo(f"{name:20}" + "".join(f"{describe(figures.get(metric)):>27}" for metric in TITLES))
    if report.evaluation.rela_impr is not None:
        click.echo(f"RelaImpr over mean pooling: {report.evaluation.rela_impr:+.2%}")
    click.echo(f"report in {publish(version, manifest, report)}")
    click.echo(f"{artifact.manifest_sum(version)}  {version / artifact.MANIFEST}")  # a line for an allow-list


def sound_manifest(version: Path) -> artifact.Manifest:
    """The manifest of a version whose files agree with it. ArtifactError: it is no such version."""
    manifest = artifact.read_manifest(version.resolve())
    artifact.check_files(version, manifest)
    return manifest


def load_split(
    manifests: list[artifact.Manifest], data: Path, seed: int | None, **sampling: Any
) -> "tuple[Split, int]":
    """The data, histories as long as any version reads, and the seed: the first version's, if none is given.

    Raises:
        DataError: the data is bad, or of another type than a version takes.
    """
    from service.training.data import load
    from service.training.scored import check_dtypes

    if seed is None:
        seed = manifests[0].training.seed if manifests[0].training else 1
    features = [feature for each in manifests for feature in (each.features.id, each.features.tag)]
    given = {name: each for name, each in sampling.items() if each is not None}
    split = load(data, seed, max(each.max_history for each in features), **given)
    for manifest in manifests:
        check_dtypes(manifest, split.test)
        if manifest.training and manifest.training.held_out not in {None, split.test.digest()}:
            other = f"Warning: version {manifest.version} was trained with other test rows held out"
            click.echo(f"{other}: it may have learnt some of these, and then looks better than it is", err=True)
    return split, seed
