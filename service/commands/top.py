"""`dinserve top`: a running server, live, from its metrics."""

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from service.commands.target import Target, targeted
from service.remote import Unreachable, ask

if TYPE_CHECKING:
    from rich.console import RenderableType

    from service.commands.scrape import Scrape

HISTORY = 60  # intervals in the line of request rates


@click.command()
@targeted
@click.option("--interval", "interval_s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True)
@click.option("--once", is_flag=True, help="print one picture, of one interval, and end")
def top(target: Target, interval_s: float, once: bool) -> None:
    """Watch a running server: requests, latency, stages, queue, batches, what is shed. q or Ctrl-C ends it.

    Figures are of the last interval, quantiles between bucket bounds are interpolated. Where standard output is no
    terminal, pictures follow each other.
    """
    from rich.console import Console
    from rich.live import Live

    view, console = View(target), Console()
    if once:
        view.look()
        time.sleep(interval_s)
        view.look()
        if view.problem is not None:
            raise Unreachable(view.problem)
        console.print(view.picture())
        return
    try:
        while not console.is_terminal:
            view.look()
            console.print(view.picture())
            time.sleep(interval_s)
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            keys = ""
            while "q" not in keys:
                view.look()
                live.update(view.picture(), refresh=True)
                keys = pressed(interval_s)
    except KeyboardInterrupt:
        return


class View:
    """What is known of a server: the last two looks at it, and what is wrong with it now."""

    def __init__(self, target: Target) -> None:
        self.problem: str | None = None
        self._target = target
        self._before: Scrape | None = None
        self._after: Scrape | None = None
        self._rates: deque[float] = deque(maxlen=HISTORY)

    def look(self) -> None:
        """Read its metrics; a server that is away is a problem, and asked again the next time."""
        from service.commands.scrape import Interval, Scrape

        url = f"{self._target.url}/metrics"
        try:
            reply = ask(url, context=self._target.context)
            seen: Scrape | None = Scrape(reply.text, time.monotonic())
        except Unreachable as error:
            self.problem = str(error)
            return
        except ValueError:
            seen = None
        if seen is None or not seen.series("din_requests_total"):
            self.problem = f"{url}: status {reply.status}, and no metrics of a dinserve"
            return
        self.problem = None
        self._before, self._after = self._after, seen
        if self._before is not None:
            self._rates.append(Interval(self._before, seen).rate("din_requests_total"))

    def picture(self) -> "RenderableType":
        """What is known now."""
        from rich.console import Group
        from rich.text import Text

        from service.commands.frame import draw
        from service.commands.scrape import Interval

        said = Text(f"{self.problem}; trying again", style="bold red") if self.problem else Text()
        if self._before is None or self._after is None:
            return said if self.problem else Text(f"{self._target.url}: the first interval is under way")
        drawn = draw(self._target.url, Interval(self._before, self._after), list(self._rates))
        return Group(said, drawn) if self.problem else drawn


def _nobody(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Keys as they are pressed: the given function waits so long, and says which one was."""
    if not sys.stdin.isatty():
        yield _nobody
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed(seconds: float) -> str:
        return os.read(sys.stdin.fileno(), 64).decode() if select.select([sys.stdin], [], [], seconds)[0] else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
