"""Which callers are let in, and how the tokens change while the server runs."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli import main
from service.config import Settings, load_settings
from service.errors import SettingsError, Unauthorized
from service.tokens import LOOK_S, MOST_BYTES, RULE, Tokens, check_tokens, make_tokens

ONE = "one-0123456789abcdef"
TWO = "two-0123456789abcdef"
SETTING = "setting-0123456789abcdef"

Clock = SimpleNamespace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of tokens that holds one."""
    path = tmp_path / "tokens"
    path.write_text(f"{ONE}\n")
    return path


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return SimpleNamespace(now=100.0)


@pytest.fixture
def tokens(file: Path, clock: Clock) -> Tokens:
    """Tokens of the setting and of the file."""
    made = make_tokens(Settings(token=SETTING, token_file=file), "token", lambda: clock.now)
    assert made is not None
    return made


def passes(tokens: Tokens | None, value: str) -> bool:
    """Whether a request with this Authorization is let in."""
    assert tokens is not None
    try:
        tokens.check({b"authorization": value.encode("latin-1")})
    except Unauthorized:
        return False
    return True


def valid(tokens: Tokens) -> set[str]:
    """Which of the tokens of this module are let in."""
    return {each for each in (ONE, TWO, SETTING) if passes(tokens, f"Bearer {each}")}


@pytest.mark.parametrize("value", [f"Bearer {ONE}", f"bearer {ONE}", f"BEARER   {ONE} "])
def test_valid_token_passes(tokens: Tokens, value: str) -> None:
    """A valid token is let in, however the scheme is written."""
    tokens.check({b"authorization": value.encode()})


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        ONE,
        f"Basic {ONE}",
        f"Bearer{ONE}",
        f"Bearer {ONE}x",
        f"Bearer {ONE[:-1]}",
        f"Bearer {ONE.upper()}",
        f"Bearer {ONE} {ONE}",
        f"Bearer {ONE},{TWO}",
        "Bearer \xff\0" + "a" * 16_000,
    ],
    ids=range(12),
)
def test_anything_else_does_not(tokens: Tokens, value: str) -> None:
    """Whatever is not Bearer and exactly a valid token is refused, without an echo."""
    with pytest.raises(Unauthorized) as caught:
        tokens.check({b"authorization": value.encode("latin-1")})
    assert (str(caught.value), caught.value.field) == ("this must be Bearer and a valid token", "Authorization")


def test_missing_header_does_not(tokens: Tokens) -> None:
    """A request without the header is refused."""
    with pytest.raises(Unauthorized):
        tokens.check({})


def test_every_token_is_compared(tokens: Tokens, file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first match does not end the comparing, so that time tells nothing of a token's place."""
    compared: list[bool] = []
    file.write_text(f"{ONE}\n{TWO}\n")
    clock.now += LOOK_S

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a == b)
        return a == b

    monkeypatch.setattr("service.tokens.hmac.compare_digest", compare)
    assert passes(tokens, f"Bearer {SETTING}")
    assert compared == [True, False, False]


def test_nothing_configured_is_no_tokens() -> None:
    """Where neither the setting nor the file is given, nobody is asked; one kind does not stand in for the other."""
    settings = Settings(token=SETTING)
    assert make_tokens(settings, "admin_token") is None
    assert make_tokens(Settings(), "token") is None
    check_tokens(settings)


def test_kinds_are_apart() -> None:
    """The token of one kind of route does not open the other."""
    settings = Settings(token=ONE, admin_token=TWO)
    assert not passes(make_tokens(settings, "admin_token"), f"Bearer {ONE}")
    assert not passes(make_tokens(settings, "token"), f"Bearer {TWO}")


def test_file_may_be_commented(file: Path, clock: Clock) -> None:
    """Blank lines, comments, indentation and either line ending mean nothing; a token a line is valid."""
    file.write_text(f"# old, until May\r\n\r\n  {ONE}\r\n\t# {SETTING}\n{TWO}")
    tokens = make_tokens(Settings(token_file=file), "token", lambda: clock.now)
    assert tokens is not None
    assert valid(tokens) == {ONE, TWO}


def test_file_is_looked_at_once_a_second(
    tokens: Tokens, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A changed file counts from the next look on, and a token that it no longer holds is refused."""
    caplog.set_level(logging.INFO)
    file.write_text(f"{TWO}\n")
    clock.now += LOOK_S - 0.01
    assert valid(tokens) == {ONE, SETTING}
    clock.now += 0.01
    assert valid(tokens) == {TWO, SETTING}
    clock.now += LOOK_S
    assert valid(tokens) == {TWO, SETTING}
    assert [record.message for record in caplog.records] == [f"DIN_TOKEN_FILE = {file}: read again, tokens: 1"]


def test_swapped_link_is_followed(tmp_path: Path, clock: Clock) -> None:
    """A link that is pointed elsewhere, as Kubernetes updates a mounted secret, brings the other file's tokens."""
    for name, token in (("..1", ONE), ("..2", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(token)
        os.utime(tmp_path / name / "tokens", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    tokens = make_tokens(Settings(token_file=tmp_path / "tokens"), "token", lambda: clock.now)
    assert tokens is not None
    assert valid(tokens) == {ONE}
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    clock.now += LOOK_S
    assert valid(tokens) == {TWO}


def make_folder(file: Path) -> None:
    """Put a folder in the file's place."""
    file.unlink()
    file.mkdir()


def make_pipe(file: Path) -> None:
    """Put a named pipe, into which nobody writes, in the file's place."""
    file.unlink()
    os.mkfifo(file)


def lead_nowhere(file: Path) -> None:
    """Put a link in the file's place that leads through something that is no folder."""
    target = file.rename(f"{file}.old")
    file.symlink_to(target / "x")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "cannot be read: No such file or directory"),
    "empty": (lambda file: file.write_text("# none\n\n"), "holds no token"),
    "weak": (lambda file: file.write_text("short\n"), f"line 1: {RULE}"),
    "folder": (make_folder, "is not a regular file"),
    "pipe": (make_pipe, "is not a regular file"),
    "huge": (lambda file: file.write_text(f"{TWO}\n" * MOST_BYTES), f"is longer than {MOST_BYTES} bytes"),
    "nowhere": (lead_nowhere, "cannot be read: Not a directory"),
}


@pytest.mark.parametrize(("damage", "problem"), list(BAD.values()), ids=list(BAD))
def test_file_that_goes_bad_changes_nothing(
    tokens: Tokens,
    file: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
    problem: str,
) -> None:
    """The last good tokens stay valid, the log says so once, and a file that is good again counts."""
    damage(file)
    for _ in range(3):
        clock.now += LOOK_S
        assert valid(tokens) == {ONE, SETTING}
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert messages[0].startswith(f"DIN_TOKEN_FILE = {file}: {problem}")
    assert messages[0].endswith("the tokens that were valid still are")
    good = file.with_name("good")
    good.write_text(TWO)
    if file.is_dir():
        file.rmdir()
    good.rename(file)
    clock.now += LOOK_S
    assert valid(tokens) == {TWO, SETTING}


@pytest.mark.parametrize(("damage", "problem"), list(BAD.values()), ids=list(BAD))
@pytest.mark.parametrize("kind", ["token", "admin_token"])
def test_bad_file_stops_the_start(file: Path, damage: Callable[[Path], object], problem: str, kind: str) -> None:
    """At start-up there is nothing to fall back on: a bad file of either kind is refused by the setting's name."""
    damage(file)
    with pytest.raises(SettingsError) as caught:
        check_tokens(Settings.model_validate({f"{kind}_file": file}))
    assert str(caught.value).startswith(f"DIN_{kind.upper()}_FILE = {file}: {problem}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_counts_again_when_it_is_readable(tokens: Tokens, file: Path, clock: Clock) -> None:
    """Permission that comes and goes without another change to the file is noticed."""
    file.write_text(TWO)
    file.chmod(0)
    clock.now += LOOK_S
    assert valid(tokens) == {ONE, SETTING}
    file.chmod(stat.S_IRUSR)
    clock.now += LOOK_S
    assert valid(tokens) == {TWO, SETTING}


def test_weak_line_is_passed_over(tokens: Tokens, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A weak token that comes later is not valid, is not repeated in the log, and keeps no other one out."""
    file.write_text(f"{TWO}\nhunter2\n")
    clock.now += LOOK_S
    assert valid(tokens) == {TWO, SETTING}
    assert not passes(tokens, "Bearer hunter2")
    assert f"line 2: {RULE}; the others are valid" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "token", ["", "short", "fifteen-letters", "with space in between", "ümlaut-0123456789", "bad-utf8-0123456789\udcff"]
)
def test_weak_token_stops_the_start(file: Path, token: str) -> None:
    """A token that can be guessed, or cannot be sent, is refused at start-up without being repeated."""
    with pytest.raises(SettingsError, match=f"^DIN_TOKEN: {RULE}$"):
        check_tokens(Settings.model_validate({"token": token, "token_file": file}))


def test_score_token_is_no_admin_token() -> None:
    """One token for both would make every caller an administrator, and is refused by name."""
    with pytest.raises(SettingsError, match=r"^DIN_ADMIN_TOKEN: the same as DIN_TOKEN"):
        load_settings({"token": ONE, "admin_token": ONE})


def test_tokens_are_not_shown(file: Path) -> None:
    """Neither the start-up listing nor anything else made of the settings shows a token."""
    settings = load_settings({"token": ONE, "admin_token": TWO, "token_file": file})
    shown: list[Any] = [settings.describe(), settings, settings.model_dump_json(), make_tokens(settings, "token")]
    assert not any(token in str(each) or token in repr(each) for each in shown for token in (ONE, TWO))
    assert "token = **********" in settings.describe().splitlines()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["token", "admin-token"])
def test_serve_does_not_start_with_a_weak_token(workers: int, kind: str) -> None:
    """The command exits with status 2 before it starts a worker, says what is wrong, and does not repeat the token."""
    done = CliRunner().invoke(main, ["serve", "--workers", str(workers), f"--{kind}", "hunter2"])
    assert done.exit_code == 2
    assert done.stderr.endswith(f"Error: DIN_{kind.upper().replace('-', '_')}: {RULE}\n")
    assert "hunter2" not in done.output
