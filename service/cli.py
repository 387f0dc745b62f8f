"""The `dinserve` command: joins the parts, and turns their errors into one sentence and an exit status."""

import http
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from service import __version__, artifact, garbage
from service.catalog_file import make_catalog
from service.commands.bench import bench
from service.commands.compare import compare
from service.commands.completion import completion
from service.commands.evaluate import evaluate
from service.commands.score import score
from service.commands.simulate import simulate
from service.commands.top import top
from service.commands.train import train
from service.config import EngineChoice, Settings, load_settings
from service.engine import Engine
from service.errors import ArtifactError, DinserveError, SettingsError
from service.logs import captured, fields, start_logging
from service.operate import versions
from service.remote import ask, local_url
from service.tls import check_tls, local_context, server_options
from service.tokens import check_tokens

if TYPE_CHECKING:  # imported where they are used, so that every command starts fast
    import uvicorn
    from fastapi import FastAPI

    from service.workers import Fleet


TOOLS = frozenset({"hdrh", "httpx2", "rich"})  # what the extra brings

logger = logging.getLogger(__name__)


class Refusing(click.Group):
    """Answers one of our errors with its message and exit status 1, or 2 where a setting is at fault."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)
        except ModuleNotFoundError as error:
            name = str(error.name).partition(".")[0]
            if name not in TOOLS:
                raise
            click.echo(f"Error: this command needs {name}: pip install 'dinserve[tools]'", err=True)
            sys.exit(1)
        except (DinserveError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)


@click.group(cls=Refusing, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dinserve")
def main() -> None:
    """Online click-through-rate scoring with a Deep Interest Network."""


for command in (bench, compare, completion, evaluate, score, simulate, top, train, versions):
    main.add_command(command)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting; a flag not given leaves the setting to environment and default."""
    for name, field in reversed(Settings.model_fields.items()):
        flag = "--" + name.replace("_", "-")
        if field.annotation is bool:
            flag += "/--no-" + name.replace("_", "-")
        option = click.option(flag, name, default=None, help=f"{field.description} [DIN_{name.upper()}]")
        command = option(command)
    return command


@main.command()
@settings_options
def serve(**flags: Any) -> None:
    """Serve the newest version of a model folder over HTTP."""
    settings = load_settings({name: value for name, value in flags.items() if value is not None})
    if settings.log_format == "text":
        click.echo(f"dinserve {__version__}\n{settings.describe()}", err=True)
    check_tokens(settings)
    check_tls(settings)
    make_catalog(settings)  # read again by whoever serves; a worker that cannot would be replaced for ever
    if settings.trace_ratio:
        from service.watch import check_tracing

        check_tracing(settings)
    start_logging(settings.log_level, settings.log_format)
    if settings.log_format == "json":
        logger.info("dinserve %s starts", __version__, extra=fields(settings=dict(settings)))
    if settings.workers == 1:
        _serve_alone(settings)
    else:
        _serve_together(settings)


def _serve_alone(settings: Settings) -> None:
    from service.server import Server

    Server(_config(settings), settings).run()


def _serve_together(settings: Settings) -> None:
    from service.workers import Supervisor, make_fleet

    with tempfile.TemporaryDirectory(prefix="dinserve-") as folder:
        fleet = make_fleet(Path(folder), settings.workers)
        Supervisor(_config(settings, fleet), settings, fleet).run()


def _config(settings: Settings, fleet: "Fleet | None" = None) -> "uvicorn.Config":
    import uvicorn

    from service.shedding import Shedding

    return uvicorn.Config(
        partial(_make_app, settings, fleet),
        factory=True,
        workers=settings.workers,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Shedding,
        ws="none",
        proxy_headers=settings.access_log > 0,  # only the log asks who the client is
        log_config=None,
        access_log=False,  # ours is in `watch`
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        **server_options(settings),
    )


def _make_app(settings: Settings, fleet: "Fleet | None") -> "FastAPI":
    """Make the application, in the process that serves it."""
    start_logging(settings.log_level, settings.log_format)
    with captured(settings.log_format):
        from service.engine import choice
    from service.app import create_app
    from service.loading import Opener
    from service.trial import Trials
    from service.watch import make_tracing
    from service.workers import end_with_parent

    if fleet is not None:
        end_with_parent()
    tracing = make_tracing(settings)  # before what is here is left out of the search for cycles
    garbage.take_over()
    intra, inter = settings.intra_op_threads, settings.inter_op_threads
    opener = Opener(
        partial(choice.load, choice=settings.engine, intra_op_threads=intra, inter_op_threads=inter),
        Trials("try", "--engine", settings.engine, shared=fleet.folder if fleet else None),
        partial(choice.load_tried, intra_op_threads=intra, inter_op_threads=inter),
        settings.allowed_manifests,
    )
    return create_app(settings, opener, fleet=fleet, tracing=tracing)


@main.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="MovieLens folder")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="file for DIN_CATALOG, .csv or .parquet")
def catalog(data: Path, out: Path) -> None:
    """Write the items of DATA as a catalog, with the tags that training on it uses."""
    from service.training.events import movies

    if out.suffix not in {".csv", ".parquet"}:
        raise click.BadParameter("is neither .csv nor .parquet", param_hint="--out")
    items = movies(data)
    aside = out.with_name(f".{out.name}.{os.getpid()}")  # a server may follow the file
    try:
        (items.write_parquet if out.suffix == ".parquet" else items.write_csv)(aside)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    click.echo(f"{len(items)} items in {out}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check a version, or every version of a model folder: checksums, signatures, golden answers."""
    found = [folder] if (folder / artifact.MANIFEST).exists() else artifact.versions(folder)
    if not found:
        raise ArtifactError(f"{folder}: neither a version nor a folder of versions")
    for version in found:
        click.echo(f"{version}: {_verify(version)}")
        click.echo(f"{artifact.manifest_sum(version)}  {version / artifact.MANIFEST}")  # a line for an allow-list


def _verify(version: Path) -> str:
    from service.engine import tensorflow
    from service.loading import open_version

    def load_rows(folder: Path, manifest: artifact.Manifest) -> Engine:
        return tensorflow.RowEngine(tensorflow.SavedModel(folder), manifest)

    for loader in (tensorflow.load, load_rows):
        served = open_version(version, loader)
        served.engine.close()
    artifact.check_report(version, served.manifest)
    if artifact.GOLDEN not in served.manifest.files:
        return "ok, without golden requests"
    return f"ok, golden answers within {artifact.TOLERANCE:g} through every signature"


@main.command("try", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Choice(get_args(EngineChoice)), required=True)
def try_version(folder: Path, engine: EngineChoice) -> None:
    """Do for a server what it would do to load a version, at the lowest priority, and print what came of it."""
    from service.trial import yield_to_all

    yield_to_all()
    logging.disable()  # the last line that is written says what is wrong
    from service.loading import open_version

    def load(version: Path, manifest: artifact.Manifest) -> Engine:
        from service.engine import choice  # seconds, which a version with damaged files is spared

        return choice.load(version, manifest, engine)

    served = open_version(folder, load)
    from service.engine import choice

    click.echo(json.dumps(asdict(choice.settle(folder, served.engine, served.manifest))))


@main.command()
@click.option("--url", help="server to ask; default: the one this environment's settings describe")
def health(url: str | None) -> None:
    """Exit 0 if a server is ready, 1 if it is not: for container health checks."""
    context = None
    if url is None:
        settings = load_settings()
        if settings.tls_client_ca is not None:
            raise DinserveError("the server asks for a client certificate (DIN_TLS_CLIENT_CA): this command has none")
        url, context = local_url(settings), local_context(settings)
    reply = ask(f"{url}/health", context=context)
    click.echo(reply.text, err=reply.status != http.HTTPStatus.OK)
    sys.exit(reply.status != http.HTTPStatus.OK)
