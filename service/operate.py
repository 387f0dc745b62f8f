"""`dinserve versions`: the admin routes of a running server, from the command line."""

from datetime import UTC, datetime
from typing import Any

import click

from service.config import Settings, load_settings
from service.errors import DinserveError, SettingsError
from service.remote import ask, local_url
from service.tls import local_context
from service.tokens import first_token

LOADING_S = 900.0  # a version that has to be loaded first is answered when it serves


class Refused(DinserveError):
    """The server said no; the message is its own."""


@click.group()
@click.option("--url", help="server to ask; default: the one this environment's settings describe")
@click.pass_context
def versions(context: click.Context, url: str | None) -> None:
    """See and choose which version a running server serves. DIN_ADMIN_TOKEN or DIN_ADMIN_TOKEN_FILE opens it."""
    context.obj = url


@versions.command("list")
@click.pass_obj
def list_versions(url: str | None) -> None:
    """Show every version, what it does, and what was decided."""
    _show(_ask(url, "GET", "versions"))


@versions.command()
@click.argument("version")
@click.pass_obj
def activate(url: str | None, version: str) -> None:
    """Pin a version: it serves from now on, and after a restart, whatever newer ones come."""
    _show(_ask(url, "POST", f"versions/{version}/activate"))


@versions.command("follow-latest")
@click.pass_obj
def follow_latest(url: str | None) -> None:
    """Undo a pin: the newest good version serves."""
    _show(_ask(url, "POST", "versions/follow-latest"))


def _share(role: str, what: str) -> click.Command:
    @click.command(role, help=f"Have VERSION {what} a share of the requests, or end that with --off.")
    @click.argument("version", required=False)
    @click.option("--percent", type=click.FloatRange(0, 100, min_open=True), default=5.0, show_default=True)
    @click.option("--off", is_flag=True, help=f"end the {role}")
    @click.pass_obj
    def command(url: str | None, version: str | None, percent: float, off: bool) -> None:
        if off == (version is not None):
            raise click.UsageError("give a version, or --off")
        body = None if off else {"version": version, "percent": percent}
        _show(_ask(url, "DELETE" if off else "PUT", role, body))

    return command


versions.add_command(_share("canary", "answer"))
versions.add_command(_share("shadow", "run copies of"))


def _ask(url: str | None, method: str, path: str, body: object = None) -> dict[str, Any]:
    settings = load_settings()
    place = f"{url or local_url(settings)}/admin/{path}"
    context = None if url else local_context(settings)
    reply = ask(place, method, token=_token(settings), body=body, timeout_s=LOADING_S, context=context)
    content: dict[str, Any] = reply.content
    if reply.status != 200:  # noqa: PLR2004
        raise Refused(f"{content['error']['code']}: {content['error']['message']}")
    return content


def _token(settings: Settings) -> str:
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    if settings.admin_token_file is None:
        raise SettingsError("DIN_ADMIN_TOKEN or DIN_ADMIN_TOKEN_FILE: the admin routes ask for a token")
    return first_token(settings.admin_token_file)


def _show(content: dict[str, Any]) -> None:
    pinned = content["pinned"]
    click.echo(f"pinned: {pinned}" if pinned else "follows the latest")
    for role in ("canary", "shadow"):
        if share := content[role]:
            click.echo(f"{role}: version {share['version']}, {share['percent']:g} % of the requests")
    for each in content["versions"]:
        state = ", ".join(each["roles"]) or (f"refused: {each['refused']}" if each["refused"] else "not loaded")
        if each["roles"]:
            loaded = datetime.fromtimestamp(each["loaded_at"], UTC).isoformat(timespec="seconds")
            state += f"  ({each['engine']}, loaded {loaded})"
        click.echo(f"{each['version']:>8}  {state}")
    for problem in content["problems"]:
        click.echo(f"problem: {problem}", err=True)
