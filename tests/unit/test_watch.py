"""Which requests are looked at closer, of many."""

import math

import pytest

from service.middleware import Call
from service.watch import Watch
from tests.collector import kept, traceparent

REQUESTS = 20_000
SCORE = {"method": "POST", "path": "/score"}


def begun(watch: Watch, headers: dict[bytes, bytes], scope: dict[str, str] = SCORE) -> tuple[float, float]:
    """The shares that are traced and logged of many requests."""
    traced = logged = 0
    for _ in range(REQUESTS):
        call = Call("one", 1.0, headers)
        watch.begin(call, scope)
        if call.notes is not None:
            traced += call.notes.trace is not None
            logged += call.notes.logged
    return traced / REQUESTS, logged / REQUESTS


def near(share: float) -> object:
    """A share that is met but for chance."""
    return pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / REQUESTS))


@pytest.mark.parametrize("slow_ms", [None, 5.0])
@pytest.mark.parametrize(("ratio", "access_log"), [(0.1, 0.0), (0.0, 0.3), (0.01, 0.2), (0.8, 0.7), (1.0, 1.0)])
def test_shares_are_met(ratio: float, access_log: float, slow_ms: float | None) -> None:
    """Requests are traced and logged at the shares that were asked for, alone or together, slow ones wanted or not."""
    watch = Watch(kept()[0], ratio, access_log, slow_ms)
    assert begun(watch, {}) == (near(ratio), near(access_log))


def test_caller_that_decides_is_followed_whatever_is_skipped() -> None:
    """With hardly any trace of one's own, each request that a caller traces is traced, and none that it does not."""
    watch = Watch(kept()[0], 1e-9, 0.2, None)
    assert begun(watch, {b"traceparent": traceparent().encode()}) == (1.0, near(0.2))
    assert begun(watch, {b"traceparent": traceparent(sampled=False).encode()}) == (0.0, near(0.2))
    assert begun(watch, {b"traceparent": b"none"}) == (0.0, near(0.2))


def test_only_scoring_is_traced() -> None:
    """Other requests are logged, and not traced."""
    watch = Watch(kept()[0], 0.5, 0.5, None)
    assert begun(watch, {}, {"method": "GET", "path": "/health"}) == (0.0, near(0.5))


def test_slow_ones_wanted_have_notes_all() -> None:
    """Whether a request was slow is known at its end, so that each to score has notes, and no other."""
    watch = Watch(None, 0.0, 0.0, 5.0)
    calls = [Call("one", 1.0, {}) for _ in range(3)]
    for call, scope in zip(calls, (SCORE, SCORE, SCORE | {"method": "GET"}), strict=True):
        watch.begin(call, scope)
    assert [call.notes is not None for call in calls] == [True, True, False]
