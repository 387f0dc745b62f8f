"""What an operator decided, and the file that keeps it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.rollout import Rollout, RolloutFile, Share

DECIDED = Rollout(pin="3", canary=Share(version="4", percent=2.5), shadow=Share(version="5", percent=100))


@given(ids=st.lists(st.uuids().map(str), min_size=1, max_size=50), percents=st.tuples(*[st.floats(0.01, 100)] * 2))
def test_share_is_stable_and_grows(ids: list[str], percents: tuple[float, float]) -> None:
    """A request belongs to a share or not, whenever it is asked, and to every larger share too."""
    small, large = (Share(version="1", percent=percent) for percent in sorted(percents))
    for each in ids:
        assert small.takes(each) == small.takes(each)
        assert large.takes(each) or not small.takes(each)


@pytest.mark.parametrize("percent", [1.0, 10.0, 50.0])
@pytest.mark.parametrize("salt", ["", "shadow"])
def test_share_is_as_large_as_it_says(percent: float, salt: str) -> None:
    """Of many requests, numbered one after the other, the share takes its percentage."""
    taken = sum(Share(version="1", percent=percent).takes(f"request-{i}", salt) for i in range(100_000))
    assert taken / 1000 == pytest.approx(percent, abs=0.5)


def test_shares_with_other_salts_are_independent() -> None:
    """Of one share's requests another takes its own percentage, not all or none."""
    share = Share(version="1", percent=50)
    both = sum(share.takes(f"{i:016x}") and share.takes(f"{i:016x}", "shadow") for i in range(20_000))
    assert both / 200 == pytest.approx(25, abs=2)


def test_whole_share_takes_everything() -> None:
    """A hundred percent is every request."""
    assert all(Share(version="1", percent=100).takes(str(i)) for i in range(20_000))


@pytest.mark.parametrize(
    "content",
    [
        {"version": "0", "percent": 1},
        {"version": "../1", "percent": 1},
        {"version": "1", "percent": 0},
        {"version": "1", "percent": 100.1},
        {"version": "1", "percent": float("nan")},
        {"version": 1, "percent": 1},
    ],
    ids=["zero", "path", "nothing", "too-much", "nan", "number"],
)
def test_share_is_checked(content: dict[str, object]) -> None:
    """A version is the number of a folder, as text, and a percentage is above 0 and at most 100."""
    with pytest.raises(ValidationError):
        Share.model_validate(content)


def test_decisions_survive(tmp_path: Path) -> None:
    """What one file object writes, another one reads."""
    file = tmp_path / "rollout.json"
    assert RolloutFile(file).read() == (Rollout(), None)
    assert RolloutFile(file).write(DECIDED) is None
    assert RolloutFile(file).read() == (DECIDED, None)
    assert [each.name for each in tmp_path.iterdir()] == ["rollout.json"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{", "file: Invalid JSON"), ('{"pin": "x"}', "pin: String should match"), ('{"new": 1}', "new: Extra inputs")],
    ids=["not-json", "no-version", "unknown"],
)
def test_broken_file_decides_nothing(tmp_path: Path, content: str, problem: str) -> None:
    """A file that is none of ours is named with its problem."""
    file = tmp_path / "rollout.json"
    file.write_text(content)
    rollout, said = RolloutFile(file).read()
    assert rollout == Rollout()
    assert said is not None
    assert said.startswith(f"{file}: {problem}")


def test_folder_is_no_file(tmp_path: Path) -> None:
    """What cannot be read is named."""
    assert RolloutFile(tmp_path).read() == (Rollout(), f"{tmp_path}: cannot be read: Is a directory")


def test_unwritable_file_is_a_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be written the reason is returned and logged, and nothing is left behind."""
    problem = RolloutFile(tmp_path / "missing" / "rollout.json").write(DECIDED)
    assert problem == f"{tmp_path}/missing/rollout.json: cannot be written: No such file or directory"
    assert problem in caplog.text
    (tmp_path / "rollout.json").mkdir()
    assert "Is a directory" in (RolloutFile(tmp_path / "rollout.json").write(DECIDED) or "")
    assert [each.name for each in tmp_path.iterdir()] == ["rollout.json"]


def test_workers_learn_from_each_other(tmp_path: Path) -> None:
    """What one worker decides the others notice once; a restart of all reads what was kept."""
    one, other = (RolloutFile(tmp_path / "kept.json", tmp_path / "shared.json") for _ in range(2))
    assert other.changed() is None
    one.write(DECIDED)
    assert other.changed() == DECIDED
    assert other.changed() is None
    assert RolloutFile(tmp_path / "kept.json").read() == (DECIDED, None)


def test_workers_agree_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """Workers follow each other even when the decision will not survive them."""
    one, other = (RolloutFile(tmp_path / "missing" / "kept.json", tmp_path / "shared.json") for _ in range(2))
    assert one.write(DECIDED) is not None
    assert other.changed() == DECIDED
    assert other.read() == (DECIDED, None)
