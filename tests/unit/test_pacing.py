"""The load that keeps a server as busy as is wanted."""

import itertools

import pytest

from benchmarks.pacing import LOOK_S, MOST, Pacer


def follow(pacer: Pacer, costs_s: list[float]) -> list[float]:
    """The rates of a pacer whose server takes so many CPU seconds for a request from look to look."""
    cpu_s, answered, rates = 10.0, 1000, []
    pacer.look(cpu_s, answered)
    for cost_s in costs_s:
        done = pacer.rate * LOOK_S
        cpu_s, answered = cpu_s + done * cost_s, answered + round(done)
        rates.append(pacer.look(cpu_s, answered))
    return rates


def test_rate_is_what_keeps_the_server_busy() -> None:
    """A rate times what a request costs is the share wanted, whatever it was to begin with."""
    for rate in (100.0, 10_000.0):
        assert follow(Pacer(0.7, rate), [0.001] * 30)[-1] == pytest.approx(700, rel=0.01)


def test_slow_machine_is_asked_for_less() -> None:
    """Requests that take twice as long come half as often two seconds later, and back again."""
    rates = follow(Pacer(0.7, 700.0), [0.001] * 5 + [0.002] * 8 + [0.001] * 8)
    assert [rates[4], rates[12], rates[20]] == pytest.approx([700, 350, 700], rel=0.01)
    assert all(0.9999 / MOST <= after / before <= 1.0001 * MOST for before, after in itertools.pairwise(rates))


def test_refused_requests_lower_the_rate() -> None:
    """CPU time that answered nobody counts for those that were answered; with none at all the rate sinks."""
    pacer = Pacer(0.5, 1000.0)
    pacer.look(0.0, 0)
    assert pacer.look(0.5, 250) == pytest.approx(1000 / MOST)
    assert pacer.look(1.0, 250) == pytest.approx(1000 / MOST**2)


def test_idle_server_changes_nothing() -> None:
    """Where no CPU time was used, nothing is known of the cost."""
    pacer = Pacer(0.5, 1000.0)
    pacer.look(3.0, 7)
    assert pacer.look(3.0, 7) == 1000
