"""The series of each version, and the drift that is made of them when they are read."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.collectors import MOST_VERSIONS, Drift
from service.drift import BOUNDS, HALF_LIFE_S, LEAST_SCORES
from service.metrics import Metrics
from service.spec import SHARE_BUCKETS

EVEN = (1 / len(BOUNDS),) * len(BOUNDS)
MIDDLES = np.array(BOUNDS, np.float32) - np.float32(0.025)
LOW = np.full(LEAST_SCORES, 0.01, np.float32)
AS_TRAINED = np.tile(MIDDLES, LEAST_SCORES // 20)


class Read:
    """Metrics, and what an exposition of them holds at a time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.metrics._drift._clock = lambda: self.now

    def load(self, version: str, shares: tuple[float, ...] | None = EVEN) -> None:
        """A version is ready."""
        self.metrics.version(version, 2000.0, 1000.0, 0.25, shares)

    def answer(self, version: str, probabilities: np.ndarray, role: str = "serving") -> None:
        """A version answers."""
        if role == "shadow":
            self.metrics.compared(version, 0.001, probabilities, 0.1)
        else:
            self.metrics.request("ok", 0.002, (1, 2, 3), (version, role, 0.001, (0.1,) * 5, probabilities))

    def values(self, name: str) -> dict[str, float]:
        """The value of each version."""
        families = self.metrics._drift.collect()
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {sample.labels["version"]: sample.value for sample in samples}

    @property
    def drift(self) -> dict[str, float]:
        """By version."""
        return self.values("din_score_drift_psi")


@pytest.fixture
def read() -> Read:
    """Of no version yet."""
    return Read()


def test_drift_is_counted_by_version(read: Read) -> None:
    """A version that scores as in training has no drift, one that does not has much, and both are told."""
    for version, scores in (("1", AS_TRAINED), ("2", LOW)):
        read.load(version)
        read.answer(version, scores)
    far = 0.95 * np.log(20) + 19 * 0.0499 * np.log(500)  # one bin has all, the others are taken for 0.0001
    assert read.drift == {"1": pytest.approx(0, abs=1e-9), "2": pytest.approx(far)}


def test_drift_is_absent_until_it_says_something(read: Read) -> None:
    """Without scores, with few, and with none lately, there is no sample: an alert has nothing to fire on."""
    read.load("1")
    assert read.drift == {}
    read.answer("1", LOW[:-1])
    assert read.drift == {}
    read.answer("1", LOW)
    read.now = 1.0
    assert read.drift.keys() == {"1"}
    read.now += 10 * HALF_LIFE_S
    assert read.drift == {}


def test_version_without_training_scores_has_no_drift(read: Read) -> None:
    """A version of which nothing is known serves and is counted, and no drift is told."""
    read.load("1", None)
    read.answer("1", LOW)
    assert read.drift == {}
    assert read.values("din_probability_count") == {"1": LEAST_SCORES}


def test_shadow_drifts_too(read: Read) -> None:
    """The copies that a shadow scores count for its drift, before it answers anybody."""
    read.load("2")
    read.answer("2", LOW, "shadow")
    assert read.drift.keys() == {"2"}


def test_facts_of_a_version(read: Read) -> None:
    """When it was made and loaded, and how many training rows were clicked, are told as they are known."""
    read.metrics.version("1", 2000.0, None, None, None)
    read.load("2")
    assert read.values("din_model_loaded_timestamp_seconds") == {"1": 2000, "2": 2000}
    assert read.values("din_model_created_timestamp_seconds") == {"2": 1000}
    assert read.values("din_training_click_ratio") == {"2": 0.25}


def test_old_versions_are_dropped(read: Read) -> None:
    """Of versions that came or answered long ago no series is left, and of those that still answer every one."""
    read.load("1")
    for number in range(2, 2 * MOST_VERSIONS):
        read.answer("1", LOW)
        read.load(str(number))
        read.answer(str(number), LOW, "canary")
        read.answer(str(number), LOW, "shadow")
    kept = {"1", *map(str, range(MOST_VERSIONS + 1, 2 * MOST_VERSIONS))}
    for name in (
        "din_score_drift_psi",
        "din_probability_count",
        "din_version_duration_seconds_count",
        "din_model_created_timestamp_seconds",
        "din_model_loaded_timestamp_seconds",
        "din_training_click_ratio",
    ):
        assert read.values(name).keys() == kept, name
    assert read.values("din_shadow_difference_count").keys() == kept - {"1"}


def test_version_that_returns_is_told_again(read: Read) -> None:
    """A version that was dropped and is loaded again has its series back."""
    for number in [*range(1, MOST_VERSIONS + 2), 1]:
        read.load(str(number))
    read.answer("1", AS_TRAINED)
    assert read.drift == {"1": pytest.approx(0, abs=1e-9)}
    assert "2" not in read.values("din_model_created_timestamp_seconds")


def test_everything_else_passes_through() -> None:
    """What is read has every family of its source, in order."""
    registry = CollectorRegistry()
    Metrics(registry)
    names = [family.name for family in registry.collect()]
    passed = [family.name for family in Drift(registry, "x").collect()]
    assert [name for name in passed if name != "din_score_drift_psi"] == names
    assert SHARE_BUCKETS == BOUNDS
