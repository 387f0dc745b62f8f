"""`dinserve score`: requests from a file or a pipe, answers as tables or JSON lines."""

import json
import sys
from typing import IO, Any

import click

from service.commands.requests import read_requests
from service.commands.target import Target, targeted


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@targeted
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), help="default: a table on a terminal, else JSON lines"
)
@click.option("--top-k", type=click.IntRange(1), help="rank so many candidates, whatever the requests say")
@click.option("--explain", is_flag=True, help="ask for attention, whatever the requests say")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, metavar="SECONDS"
)
def score(target: Target, file: IO[str], form: str | None, top_k: int | None, explain: bool, timeout_s: float) -> None:
    """Score the requests in FILE, or on standard input: a JSON object, or one on each line, as POST /score takes it.

    A request that is refused is told on standard error, its line of JSON is the server's error, the others go on, and
    the exit status is 1. DIN_TOKEN or DIN_TOKEN_FILE is the token, if the server asks for one.
    """
    from service.client import Client, Refused
    from service.client.messages import score_body

    table = form == "table" or (form is None and sys.stdout.isatty())
    refused = False
    with Client(target.url, token=target.token, timeout_s=timeout_s, verify=target.context) as client:
        for number, request in read_requests(file):
            if top_k is not None:
                request["top_k"] = top_k
            if explain:
                request["explain"] = True
            try:
                scores = client.ask(score_body(json.dumps(request).encode()))
            except Refused as error:
                refused = True
                click.echo(f"Error: line {number}: {error} (request {error.request_id})", err=True)
                if not table:
                    click.echo(json.dumps(_error(error)))
                continue
            if table:
                from rich.console import Console

                from service.commands.table import ranked

                Console().print(ranked(request, scores))
            else:
                click.echo(scores.model_dump_json())
    sys.exit(refused)


def _error(error: Any) -> dict[str, Any]:
    """As the server said it."""
    detail = {"code": error.code, "message": error.message, "field": error.field}
    return {"error": detail, "request_id": error.request_id}
