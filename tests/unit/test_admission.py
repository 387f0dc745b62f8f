"""Whether a request is let in: numbers in, a yes or a no out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admission import (
    PAUSE_S,
    PROMISED,
    SHORT_S,
    STANDS_S,
    Admission,
    PerRow,
    in_time,
    learn,
    predict_wait,
    retry_after_s,
)


def test_cost_of_a_row_is_learnt() -> None:
    """The first batch tells, a faster one is believed at once, and a slower one bit by bit, up to what it took."""
    assert learn(math.inf, 10, 5.0) == 0.5
    assert learn(0.5, 10, 1.0) == 0.1
    assert learn(0.1, 10, 1000.0) == pytest.approx(0.15)
    assert learn(0.1, 10, 1.2) == 0.12


def test_mean_is_over_rows() -> None:
    """A row takes what all rows took together, so that a small batch's fixed costs do not count like a large one's."""
    assert PerRow().mean == 0
    assert PerRow().after(10, 5.0).mean == 0.5
    assert PerRow().after(1000, 1.0).after(1, 0.008).mean == pytest.approx(0.001, rel=0.02)


@pytest.mark.parametrize("pause_s", [0.5, 5.0, 3600.0])
def test_pause_is_forgotten(pause_s: float) -> None:
    """However long one batch was held up, the mean at most doubles, and is back after some forty batches."""
    mean = steady(PerRow(), 64, 0.002)
    paused = mean.after(1000, pause_s)
    assert mean.mean < paused.mean < 2 * mean.mean
    assert steady(paused, 40, 0.002).mean == pytest.approx(mean.mean, rel=0.05)


@pytest.mark.parametrize("times", [pytest.param(20, id="slower"), pytest.param(1 / 20, id="faster")])
def test_new_pace_is_learnt(times: float) -> None:
    """A lasting change, either way, is known after some sixty batches."""
    assert steady(steady(PerRow(), 64, 0.002), 64, 0.002 * times).mean == pytest.approx(0.002e-3 * times, rel=0.4)


def test_slow_first_batch_is_forgotten() -> None:
    """A first batch that took a hundred times its time is worth little after fifty more."""
    assert steady(PerRow().after(1000, 0.2), 80, 0.002).mean == pytest.approx(0.002e-3, rel=0.6)


def steady(mean: PerRow, batches: int, took: float) -> PerRow:
    """Add equal batches of a thousand rows."""
    for _ in range(batches):
        mean = mean.after(1000, took)
    return mean


def test_wait_is_rows_times_pace() -> None:
    """Those ahead are shared among the executors, one's own rows are not, and what is overdue comes on top."""
    assert predict_wait(100, 10, 0.01, 1) == pytest.approx(1.1)
    assert predict_wait(100, 10, 0.01, 2) == pytest.approx(0.6)
    assert predict_wait(100, 10, 0.01, 2, 0.5) == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("ahead", "wait_s", "let_in"),
    [
        pytest.param(1, PROMISED, True, id="just-in-time"),
        pytest.param(1, PROMISED + 0.01, False, id="too-late"),
        pytest.param(0, 100.0, True, id="alone"),
    ],
)
def test_who_can_make_it_is_let_in(ahead: int, wait_s: float, let_in: bool) -> None:
    """A request is let in that should wait no longer than is promised, and one that meets nobody always."""
    assert in_time(ahead, wait_s, 1.0) is let_in


@pytest.mark.parametrize(("wait_s", "seconds"), [(0.0, 1), (0.3, 1), (1.0, 1), (1.2, 2), (7.9, 8)])
def test_retry_after_is_whole_seconds(wait_s: float, seconds: int) -> None:
    """The caller is told to come back when what is here is done, in whole seconds, at least one."""
    assert retry_after_s(wait_s) == seconds


def test_refusal_says_why() -> None:
    """A full queue, a wait too long and room enough are told apart, with the wait that was predicted."""
    admission = Admission(100, 1)
    admission.ran(10, 0.05, 0.1)
    admission.waiting = 90
    full, late = admission.refusal(11, 0.0, 60.0, 0.0), admission.refusal(10, 0.0, 1.0, 0.0)
    assert full is not None
    assert late is not None
    assert (full.reason, late.reason) == ("queue", "deadline")
    assert [full.wait_s, late.wait_s] == pytest.approx([1.01, 1.0])
    assert admission.refusal(10, 0.0, 60.0, 0.0) is None
    assert admission.refusal(10, 0.0, 60.0, 60.0) is not None


def test_room_is_kept_for_the_large() -> None:
    """With less room than is asked for nobody is let in, however small."""
    admission = Admission(100, 1, waiting=90)
    assert admission.refusal(1, 0.0, 60.0, 0.0, room=10) is None
    refusal = admission.refusal(1, 0.0, 60.0, 0.0, room=11)
    assert refusal is not None
    assert refusal.reason == "queue"


def test_nothing_known_lets_all_in() -> None:
    """Before the first batch has ended only the bound in rows refuses."""
    admission = Admission(100, 1, waiting=50, running=50)
    assert admission.refusal(50, 0.0, 0.001, 0.0) is None
    assert admission.refusal(51, 0.0, 0.001, 0.0) is not None


@given(st.integers(0, 200), st.integers(0, 50), st.integers(1, 100), st.floats(0, 10), st.floats(1e-6, 1))
def test_more_ahead_is_never_better(waiting: int, more: int, rows: int, left_s: float, row_s: float) -> None:
    """Who is refused would be refused behind a longer queue too, except from an empty server."""
    near, far = (Admission(200, 2, waiting=each, running=1) for each in (waiting, waiting + more))
    for each in (near, far):
        each.ran(1, row_s, row_s)
    assert near.refusal(rows, 0.0, left_s, 0.0) is None or far.refusal(rows, 0.0, left_s, 0.0) is not None


def test_pressed_before_anybody_is_refused() -> None:
    """Half of the queue, or of the wait that a deadline allows, is pressure; a short queue that moves is none."""
    admission = Admission(100, 1)
    admission.ran(10, 0.05, 0.1)  # 10 ms a row
    assert not admission.pressed(0.0, 1.25, 0.0)
    admission.waiting = 20
    assert not admission.pressed(0.0, 1.25, 0.0)
    assert admission.pressed(0.0, 1.25, 0.3)
    assert admission.pressed(0.0, 0.625, 0.0)
    admission.waiting = 51
    assert admission.pressed(0.0, 60.0, 0.0)


@given(
    st.integers(0, 200),
    st.lists(st.integers(1, 100), min_size=1, max_size=20),
    st.integers(1, 3),
    st.integers(0, 12),
    st.floats(0, 10),
    st.floats(1e-6, 1),
    st.booleans(),
)
def test_what_is_free_may_be_taken(
    waiting: int, requests: list[int], executors: int, room: int, left_s: float, row_s: float, short: bool
) -> None:
    """Whoever comes while it lasts would not be refused, however it is split."""
    admission = Admission(200, executors, waiting=waiting, running=1)
    admission.ran(1, row_s, row_s)
    if short:
        admission.refused_at, admission.refusing_since = 0.0, -STANDS_S
    free = admission.free(0.0, left_s, 0.01, room)
    for rows in requests:
        free -= rows
        if free < 0:
            break
        assert admission.refusal(rows, 0.0, left_s, 0.01, room) is None
        admission.coming += rows


def test_free_is_what_the_strictest_bound_leaves() -> None:
    """That is the room in the queue, the wait that a deadline allows, or a short queue; none, if it is less."""
    admission = Admission(100, 1, waiting=30, coming=10)
    assert admission.free(0.0, 1.0, 0.0, room=5) == 55
    admission.ran(10, 0.1, 0.1)  # 10 ms a row
    assert admission.free(0.0, 60.0, 0.0) == 60
    assert admission.free(0.0, 1.25, 0.0) == pytest.approx(10)
    assert admission.free(0.0, 1.25, 0.2) == 0
    admission.refused_at, admission.refusing_since, admission.row_s = 0.0, -STANDS_S, 0.0002
    assert admission.free(0.0, 60.0, 0.0) == pytest.approx(SHORT_S / 0.0002 - 40)


FULL, ROOMY = 101, 30.0  # rows that a queue of a hundred never has room for; seconds to a deadline
SHORT = 10  # rows of 1 ms each


def overloaded(until: float) -> Admission:
    """A queue of a hundred rows of 1 ms each, beyond which some have been refused from second 0 to `until`."""
    assert SHORT * 0.001 == SHORT_S
    admission = Admission(100, 1)
    admission.ran(10, 0.01, 0.01)
    for step in range(math.ceil(until / PAUSE_S * 2) + 1):
        assert admission.refusal(FULL, min(step * PAUSE_S / 2, until), ROOMY, 0.0) is not None
    return admission


def test_queue_that_stays_full_becomes_short() -> None:
    """Once some were refused for a second, no more may wait than keeps the executors busy, and it is told why."""
    admission = overloaded(until=STANDS_S)
    assert admission.standing(STANDS_S)
    admission.waiting = SHORT + 1
    refusal = admission.refusal(1, STANDS_S, ROOMY, 0.0)
    assert refusal is not None
    assert refusal.reason == "standing"
    admission.waiting, admission.running = SHORT, 60
    assert admission.refusal(70, STANDS_S, ROOMY, 0.0) is None


def test_full_queue_may_stay_long_for_a_moment() -> None:
    """A burst, or what a pause of the machine has left behind, fills the queue, and all that fits may wait."""
    admission = overloaded(until=STANDS_S - PAUSE_S)
    admission.waiting = 99
    assert admission.refusal(1, STANDS_S - PAUSE_S, ROOMY, 0.0) is None


def test_overload_is_over_when_nobody_is_refused() -> None:
    """A tenth of a second without a refusal ends it: the next one begins a second anew."""
    admission = overloaded(until=STANDS_S)
    calm = STANDS_S + PAUSE_S
    admission.waiting = 99
    assert not admission.standing(calm)
    assert admission.refusal(1, calm, ROOMY, 0.0) is None
    assert admission.refusal(FULL, calm, ROOMY, 0.0) is not None
    assert admission.refusal(1, calm, ROOMY, 0.0) is None


def test_those_refused_for_a_standing_queue_keep_it_short() -> None:
    """It is not made long again by its own success: a refusal is one, whatever for."""
    admission = overloaded(until=STANDS_S)
    admission.waiting = SHORT + 1
    for step in range(1, 100):
        assert admission.refusal(1, STANDS_S + step * PAUSE_S / 2, ROOMY, 0.0) is not None


def test_executors_share_a_short_queue() -> None:
    """It is short by how long it takes, however many work on it, and what they work on does not count."""
    admission = overloaded(until=STANDS_S)
    admission.executors, admission.waiting, admission.running = 2, 2 * SHORT, 90
    assert admission.refusal(1, STANDS_S, ROOMY, 0.0) is None
    admission.waiting += 1
    assert admission.refusal(1, STANDS_S, ROOMY, 0.0) is not None


def test_pressed_while_the_queue_is_to_be_short() -> None:
    """Then requests are looked at before they are parsed, however few wait."""
    admission = overloaded(until=STANDS_S)
    assert admission.pressed(STANDS_S, ROOMY, 0.0)
    assert not admission.pressed(STANDS_S + PAUSE_S, ROOMY, 0.0)
