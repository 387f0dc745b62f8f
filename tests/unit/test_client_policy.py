"""When a call is sent, repeated, hedged and given up, with time and chance as arguments."""

import pytest

from service.client.errors import (
    ClientError,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotReady,
    Overloaded,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
)
from service.client.policy import Answered, Budget, Call, Failed, Rules, Send, Wait

LOST = Unreachable("gone")


def overloaded(retry_after_s: float | None = None) -> Overloaded:
    """A refusal that may be repeated."""
    return Overloaded("overloaded", "too much", status=503, retry_after_s=retry_after_s)


def begin(
    *, retries: int = 2, hedge_s: float | None = None, budget: Budget | None = None, chance: float = 0.5
) -> Call[str]:
    """A call that begins at 100 and has 1 s, whose first attempt is sent."""
    rules = Rules(1.0, retries, hedge_s, backoff_s=0.125, longest_backoff_s=0.375)
    call: Call[str] = Call(rules, budget or Budget(), 100.0, lambda: chance)
    assert call.step(100.0) == Send()
    return call


def test_answer_ends_the_call() -> None:
    """A call waits for its attempt until its deadline, and has the answer when that comes."""
    call = begin()
    assert call.step(100.1) == Wait(101.0)
    call.ended(100.2, Answered("yes"))
    assert call.step(100.2) == Answered("yes")


def test_time_that_is_up_ends_the_call() -> None:
    """At the deadline the call has timed out, whatever is still under way."""
    call = begin()
    step = call.step(101.0)
    assert isinstance(step, Failed)
    assert isinstance(step.error, TimedOut)
    assert str(step.error) == "no answer in 1 s"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(overloaded(), id="overloaded"),
        pytest.param(NotReady("not_ready", "loading", status=503), id="not-ready"),
        pytest.param(LOST, id="lost"),
        pytest.param(UnexpectedAnswer("a proxy", 502), id="bad-gateway"),
    ],
)
def test_what_may_pass_is_repeated(error: ClientError) -> None:
    """Refusals and losses that another attempt may not meet are repeated, and the last is the call's error."""
    call = begin(retries=1)
    call.ended(100.25, Failed(error))
    assert call.step(100.25) == Wait(100.3125)
    assert call.step(100.3125) == Send()
    call.ended(100.5, Failed(error))
    assert call.step(100.5) == Failed(error)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InvalidRequest("invalid_request", "no", status=422), id="invalid"),
        pytest.param(Internal("internal", "oh", status=500), id="defect"),
        pytest.param(DeadlineExceeded("deadline_exceeded", "late", status=504), id="late"),
        pytest.param(UnexpectedAnswer("somebody else", 200), id="somebody-else"),
        pytest.param(TimedOut("late"), id="timed-out"),
    ],
)
def test_what_stays_so_is_final(error: ClientError) -> None:
    """What another attempt would meet again ends the call at once."""
    call = begin()
    call.ended(100.1, Failed(error))
    assert call.step(100.1) == Failed(error)


def test_retry_after_is_honoured() -> None:
    """The server's own word replaces the back-off."""
    call = begin()
    call.ended(100.25, Failed(overloaded(0.5)))
    assert call.step(100.25) == Wait(100.75)


def test_retry_after_the_deadline_is_none() -> None:
    """Where the wait the server asks for does not fit into the call's time, the refusal is passed on at once."""
    budget = Budget()
    call = begin(budget=budget)
    call.ended(100.1, Failed(overloaded(1)))
    assert isinstance(call.step(100.1), Failed)
    assert budget.left == 10


def test_back_off_doubles_up_to_a_limit() -> None:
    """Waits are drawn from 0 to a length that doubles, and ends where it should."""
    waits = []
    call, now = begin(retries=4, chance=1.0), 100.0
    for _ in range(3):
        call.ended(now, Failed(LOST))
        step = call.step(now)
        assert isinstance(step, Wait)
        waits.append(step.until - now)
        now = step.until
        assert call.step(now) == Send()
    assert waits == pytest.approx([0.125, 0.25, 0.375])


def test_timed_out_retry_says_what_came_before() -> None:
    """When a retry's time is up, the message has the refusal that made it a retry."""
    call = begin(chance=0.0)
    call.ended(100.1, Failed(overloaded()))
    assert call.step(100.1) == Send()
    step = call.step(101.0)
    assert isinstance(step, Failed)
    assert str(step.error) == "no answer in 1 s; before that: overloaded: too much"


def test_budget_bounds_the_attempts_of_all_calls() -> None:
    """Of a server that refuses everything, a client asks ten times and a tenth more than it is called, not thrice."""
    budget, sent = Budget(), 0
    for _ in range(1000):
        call: Call[str] = Call(Rules(1.0, 2), budget, 100.0, lambda: 0.0)
        while call.step(100.0) == Send():
            sent += 1
            call.ended(100.0, Failed(overloaded()))
    assert 1100 <= sent <= 1110


def test_quiet_client_saves_up_no_more_than_the_most() -> None:
    """Good calls fill the budget up to its limit."""
    budget = Budget(ratio=0.5, most=3)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    for _ in range(100):
        budget.earn()
    assert budget.left == 3


def test_hedge_runs_beside_a_slow_attempt() -> None:
    """After so long a second attempt is sent, once, and the first good answer of the two is the call's."""
    call = begin(hedge_s=0.2)
    assert call.step(100.1) == Wait(100.2)
    assert call.step(100.2) == Send()
    assert call.step(100.3) == Wait(101.0)
    call.ended(100.4, Answered("hedge"))
    call.ended(100.5, Answered("first"))
    assert call.step(100.5) == Answered("hedge")


def test_failed_attempt_leaves_its_hedge_running() -> None:
    """While one of two attempts may still answer, the loss of the other changes nothing."""
    call = begin(hedge_s=0.2)
    assert call.step(100.2) == Send()
    call.ended(100.3, Failed(LOST))
    assert call.step(100.3) == Wait(101.0)
    call.ended(100.4, Answered("hedge"))
    assert call.step(100.4) == Answered("hedge")


def test_both_lost_are_one_retry() -> None:
    """When the attempt and its hedge are lost, the call goes on with one attempt."""
    call = begin(hedge_s=0.2, chance=0.0)
    assert call.step(100.2) == Send()
    call.ended(100.3, Failed(LOST))
    call.ended(100.3, Failed(LOST))
    assert call.step(100.3) == Send()
    assert call.step(100.3) == Wait(101.0)


def test_refused_hedge_is_final() -> None:
    """A refusal that would come again ends the call though another attempt runs: both asked the same."""
    call = begin(hedge_s=0.2)
    assert call.step(100.2) == Send()
    call.ended(100.3, Failed(InvalidRequest("invalid_request", "no")))
    assert isinstance(call.step(100.3), Failed)


def test_hedge_needs_the_budget() -> None:
    """Without budget the first attempt stays alone."""
    call = begin(hedge_s=0.2, budget=Budget(most=0.5))
    assert call.step(100.2) == Wait(101.0)
    assert call.step(100.3) == Wait(101.0)


@pytest.mark.parametrize(
    "values", [(0.0, 1, None), (1.0, -1, None), (1.0, 1, -0.1)], ids=["timeout", "retries", "hedge"]
)
def test_senseless_rules_are_refused(values: tuple[float, int, float | None]) -> None:
    """Times that have passed and negative counts are errors when the client is made."""
    with pytest.raises(ValueError, match="must"):
        Rules(*values)
