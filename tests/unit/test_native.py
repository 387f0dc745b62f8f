import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.artifact import Activation, Architecture
from service.batch import Ids
from service.engine.native import _forward
from tests.unit import raw
from tests.unit.raw import EXTREMES, LEVELS, Raw, as_tuples, draw_raw, make_network
from tests.unit.reference import ACTIVATIONS, Answer, Hashed, Network, draw_arrays, forward, networks

EXAMPLES = int(os.environ.get("DIN_TEST_EXAMPLES", "60"))


def make_model(network: Network, level: str = LEVELS[0]) -> _forward.Model:
    """A network in C."""
    return _forward.Model(*as_tuples(network), level)


def forward_chunked(network: Network, request: Hashed, candidates: int = 25) -> Answer:
    """The reference's answer, a few candidates at a time: (C, T, 4D) of a large request is gigabytes."""
    parts = [
        forward(network, Hashed(request.histories, tuple(each[i : i + candidates] for each in request.targets)))
        for i in range(0, len(request.targets[0]), candidates)
    ]
    probability, attention = zip(*parts, strict=True)
    return np.concatenate(probability), tuple(np.concatenate(each) for each in zip(*attention, strict=True))


@pytest.mark.parametrize("level", LEVELS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_network_answers_as_the_textbook(level: str, data: st.DataObject) -> None:
    """Any network of 1 to 3 pairs answers any request as the reference does, probabilities and attention."""
    network = data.draw(networks(most_dimension=70))
    model = make_model(network, level)
    requests = data.draw(st.lists(raw.raws(len(network.tables)), min_size=1, max_size=4))
    found = raw.run(model, requests, longer=data.draw(st.integers(0, 20)))
    for request, answer in zip(requests, found, strict=True):
        raw.check(answer, forward(network, request.hash(network)), network)
    np.testing.assert_array_equal(raw.run_plainly(model, requests), np.concatenate([each for each, _ in found]))


@pytest.mark.parametrize("level", LEVELS)
@given(data=st.data())
@settings(max_examples=EXAMPLES // 2, deadline=None)
def test_company_and_order_change_nothing(level: str, data: st.DataObject) -> None:
    """A request gets the same answer alone, in a batch with strangers, in any order of them and of its candidates."""
    network = data.draw(networks(pairs=st.just(2)))
    model, shuffle = make_model(network, level), data.draw(st.randoms())
    requests = data.draw(st.lists(raw.raws(2), min_size=2, max_size=6))
    order = shuffle.sample(range(len(requests)), len(requests))
    together = raw.run(model, requests)
    permuted = raw.run(model, [requests[i] for i in order])
    for i, request in enumerate(requests):
        (alone,) = raw.run(model, [request])
        rows = shuffle.sample(range(request.rows), request.rows)
        (moved,) = raw.run(model, [request.take(rows)])
        for answer, expected in ((together[i][0], alone[0]), (permuted[order.index(i)][0], alone[0])):
            np.testing.assert_array_equal(answer, expected)
        np.testing.assert_allclose(moved[0], alone[0][rows], rtol=0, atol=1e-6)
        for p in (0, 1):
            scale = max(1.0, float(abs(alone[1][p]).max(initial=0)))
            np.testing.assert_allclose(moved[1][p], alone[1][p][rows], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("units", [1, 15, 16, 17, 31, 32, 33, 48])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_sizes_around_a_vector(level: str, activation: Activation, units: int) -> None:
    """Units, dimensions, history lengths and candidates one less and one more than a vector or a tile are right."""
    tables = {"id": (200, units), "tag": (3, 50 - units)}
    architecture = Architecture(
        attention_hidden=(units, 49 - units),
        head_hidden=(units,),
        attention_activation=activation,
        head_activation=activation,
    )
    network = Network(architecture, tables, draw_arrays(np.random.default_rng(units), tables, architecture))
    model, rng = make_model(network, level), np.random.default_rng(units)
    sizes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33]
    for size, other in zip(sizes, sizes[::-1], strict=True):
        request = draw_raw(rng, (size, other), max(other, 1))
        raw.check(raw.run(model, [request])[0], forward(network, request.hash(network)), network)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dimension", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("product", [pytest.param(True, id="product"), pytest.param(False, id="plain")])
def test_products_and_biases(level: str, dimension: int, product: bool) -> None:
    """Products and biases are those of their own candidate, a repeated one too, in a batch of several requests."""
    tables = {"id": (50, dimension), "tag": (7, 5)}
    architecture = Architecture(product=product, item_bias=True, attention_hidden=(6,), head_hidden=(9,))
    rng = np.random.default_rng(dimension)
    network = Network(architecture, tables, draw_arrays(rng, tables, architecture))
    requests = [draw_raw(rng, (9 * i, 5), 1 + 8 * i, few=i % 2 > 0) for i in range(4)]
    found = raw.run(make_model(network, level), requests)
    for request, answer in zip(requests, found, strict=True):
        raw.check(answer, forward(network, request.hash(network)), network)
    network.arrays["item_bias"][:] += 1
    moved = raw.run(make_model(network, level), requests)
    for (before, _), (after, _) in zip(found, moved, strict=True):
        logits, others = (np.log(each.astype(float) / (1 - each.astype(float))) for each in (before, after))
        np.testing.assert_allclose(others, logits + 1, atol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_repeated_values(level: str, pooling: str) -> None:
    """A value that repeats in a history weighs as often as it is there; equal candidates get equal answers."""
    network = make_network(pooling=pooling)
    history, target = np.array([7, 8, 7, 7, 9, 8] * 20), np.array([1, 2, 1, 1] * 15)
    request = Raw((history, history), (target, target % 2))
    (answer,) = raw.run(make_model(network, level), [request])
    raw.check(answer, forward(network, request.hash(network)), network)
    for each in (answer[0], *answer[1]):
        np.testing.assert_array_equal(each[0::4], each[2::4])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "lengths", [pytest.param((0, 0), id="both"), pytest.param((0, 9), id="ids"), pytest.param((9, 0), id="tags")]
)
@pytest.mark.parametrize("softmax", [pytest.param(True, id="softmax"), pytest.param(False, id="plain")])
def test_no_history(level: str, lengths: tuple[int, int], softmax: bool) -> None:
    """Without history the pooled vector is zero, and attention has no columns or only zeros."""
    network = make_network(softmax=softmax)
    request = draw_raw(np.random.default_rng(1), lengths, 1)
    for longer in (0, 3):
        (answer,) = raw.run(make_model(network, level), [request], longer)
        raw.check(answer, forward(network, request.hash(network)), network)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.array([*EXTREMES, 10**18, -(10**18), 9, -9]), id="extreme-numbers"),
        pytest.param(
            np.array([b"", "\u00e9\U0001f3ac".encode(), b"\0", b"\0\0", b"x" * 10_000, b"7"], object), id="text"
        ),
    ],
)
def test_unusual_values(values: Ids) -> None:
    """Numbers at the ends of int64 and text of any length, zero bytes too, fall into their own buckets."""
    network = make_network(buckets=100_003)
    request = Raw((values, values[:3]), (values, values[::-1].copy()))
    for level in LEVELS:
        raw.check(raw.run(make_model(network, level), [request])[0], forward(network, request.hash(network)), network)


def test_numbers_are_their_text() -> None:
    """A number of any count of digits and its decimal text are the same value."""
    digits = [sign * (10**power + step) for sign in (1, -1) for power in range(19) for step in (-1, 0, 1)]
    network, values = make_network(buckets=100_003), np.array([*EXTREMES, *digits])
    text = np.array([str(each).encode() for each in values.tolist()], object)
    model = make_model(network)
    answers = [raw.run_plainly(model, [Raw((each, each), (each, each))]) for each in (values, text)]
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_scores_far_from_zero(level: str, bias: float) -> None:
    """Scores whose exponentials no float can hold are weighed against each other all the same."""
    network = make_network()
    network.arrays["attention_id.2.bias"][:] = bias
    request = draw_raw(np.random.default_rng(1), (30, 20), 20)
    raw.check(raw.run(make_model(network, level), [request])[0], forward(network, request.hash(network)), network)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("few", [pytest.param(False, id="different"), pytest.param(True, id="repeating")])
def test_large_request(level: str, few: bool) -> None:
    """5,000 candidates x 1,000 history are answered as precisely as small ones."""
    network = make_network(buckets=20_000, pairs=1, attention_hidden=(8,))
    request = draw_raw(np.random.default_rng(1), (1000,), 5000, few=few)
    (answer,) = raw.run(make_model(network, level), [request])
    hashed = request.hash(network)
    some = np.arange(0, 5000, 5 if level == LEVELS[0] else 50)
    expected = forward_chunked(network, Hashed(hashed.histories, tuple(each[some] for each in hashed.targets)))
    raw.check((answer[0][some], (answer[1][0][some],)), expected, network)
    assert np.isfinite(answer[0]).all()
    np.testing.assert_allclose(answer[1][0].sum(1, dtype=np.float64), 1, rtol=0, atol=1e-5)


def test_many_requests_at_once() -> None:
    """A batch may hold thousands of requests, or none."""
    model, rng = make_model(make_network()), np.random.default_rng(1)
    requests = [draw_raw(rng, (3, 2), 1) for _ in range(5000)]
    alone = np.concatenate([raw.run_plainly(model, [each]) for each in requests])
    np.testing.assert_array_equal(raw.run_plainly(model, requests), alone)
    raw.run_plainly(model, [])


def test_request_without_candidates() -> None:
    """A request of no candidates has no answer, and its neighbours have theirs."""
    model, rng = make_model(make_network()), np.random.default_rng(1)
    requests = [draw_raw(rng, (5, 4), rows) for rows in (0, 3, 0)]
    np.testing.assert_array_equal(raw.run_plainly(model, requests), raw.run_plainly(model, requests[1:2]))


def test_levels_agree() -> None:
    """The fastest instruction set comes first, the one that every processor has last, and each model says its own."""
    assert LEVELS[-1] == "plain"
    assert [make_model(make_network(), level).level for level in LEVELS] == LEVELS
    assert _forward.Model(*as_tuples(make_network())).level == LEVELS[0]


def test_threads_do_not_disturb_each_other() -> None:
    """Four threads on one model at the same time each get their own answers."""
    model, rng = make_model(make_network()), np.random.default_rng(1)
    requests = [draw_raw(rng, (200 - 20 * i, 10 * i), 50 + i, few=i % 2 > 0, text=i % 3 > 1) for i in range(8)]
    alone = [raw.run(model, [each])[0] for each in requests]
    barrier = threading.Barrier(4)

    def work(thread: int) -> None:
        barrier.wait()
        for turn in range(100):
            i = (turn + 2 * thread) % len(requests)
            (found,) = raw.run(model, [requests[i]])
            for each, expected in zip((found[0], *found[1]), (alone[i][0], *alone[i][1]), strict=True):
                np.testing.assert_array_equal(each, expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_interpreter_goes_on_during_a_call() -> None:
    """While one thread computes a large request, another runs Python."""
    model = make_model(make_network(buckets=20_000))
    request = draw_raw(np.random.default_rng(1), (1000, 1000), 5000)
    window: list[float] = []

    def work() -> None:
        window.append(time.perf_counter())
        raw.run_plainly(model, [request])
        window.append(time.perf_counter())

    thread, seen = threading.Thread(target=work), []
    thread.start()
    while thread.is_alive():
        seen.append(time.perf_counter())
    # Were the lock held, this thread would stand still from the call's beginning to its end.
    still = np.diff([window[0], *(each for each in seen if window[0] < each < window[1]), window[1]]).max()
    assert still < (window[1] - window[0]) / 2


@pytest.mark.parametrize("text", [pytest.param(False, id="numbers"), pytest.param(True, id="text")])
def test_input_may_be_read_only(text: bool) -> None:
    """What is only read may be read-only, and an array may stand in several places."""
    network = make_network()
    weights = as_tuples(network)
    for pair in weights[0]:
        pair[0].flags.writeable = pair[1].flags.writeable = False
    request = draw_raw(np.random.default_rng(1), (9, 9), 9, text=text)
    for values in request.arrays:
        values.flags.writeable = False
    same = Raw((request.histories[0],) * 2, (request.histories[0],) * 2)
    model = _forward.Model(*weights)
    for each in (request, same):
        raw.check(raw.run(model, [each])[0], forward(network, each.hash(network)), network)
