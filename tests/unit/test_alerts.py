"""The rules of Prometheus: promtool accepts and tries them, and each alert leads to something to do."""

import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from service.errors import DeadlineExceeded, Internal, NotReady, Overloaded
from service.refusals import STATUS
from service.specs import SPECS
from tests.image import ROOT, read_yaml
from tests.monitoring import FOLDER, rules

RULES = sorted(FOLDER.glob("rules/*.yml"))
TRIALS = sorted(FOLDER.glob("tests/*.yml"))


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDS = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("check", "config", str(FOLDER / "prometheus.yml")), id="config"),
        pytest.param(("check", "rules", *map(str, RULES)), id="rules"),
        pytest.param(("test", "rules", *map(str, TRIALS)), id="trials"),
    ],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    """Prometheus' own tool accepts configuration and rules, and every alert fires when it should and only then."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, which comes with Prometheus, is not here")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_broken_rule_is_found(tmp_path: Path) -> None:
    """With a threshold that nothing reaches, promtool says which alert does not fire."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, which comes with Prometheus, is not here")
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "rules" / "alerts.yml"
    file.write_text(file.read_text().replace("(din_score_drift_psi) > 0.25", "(din_score_drift_psi) > 25"))
    command = [promtool, "test", "rules", str(tmp_path / "tests" / "model.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "alertname: DinserveScoresDrift" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_tried(alert: str) -> None:
    """A trial expects each alert, for the sick namespace if any, beside series for which none is expected."""
    fired = []
    for trial in chain.from_iterable(read_yaml(file)["tests"] for file in TRIALS):
        for expected in trial["alert_rule_test"]:
            if expected["alertname"] == alert and expected.get("exp_alerts"):
                fired += expected["exp_alerts"]
                assert alert == "DinserveAbsent" or any("well" in each["series"] for each in trial["input_series"])
    assert fired
    assert {each["exp_labels"].get("namespace", "sick") for each in fired} == {"sick"}


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_says_what_to_do(alert: str) -> None:
    """Each alert has a severity, says what is wrong and links to a heading of the runbooks, with text under it."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    link = rule["annotations"]["runbook_url"]
    assert link.partition("#")[::2] == ('{{ or $externalLabels.runbooks "RUNBOOKS.md" }}', alert.lower())
    sections = dict(re.findall(r"^## (\w+)\n\n(.+?)(?=^## |\Z)", runbooks(), re.MULTILINE | re.DOTALL))
    assert sections[alert].startswith(f"*{rule['labels']['severity']}.*")
    assert len(sections[alert]) > 200


def runbooks() -> str:
    """What to do when an alert fires."""
    return (FOLDER / "RUNBOOKS.md").read_text()


def test_runbooks_lead_somewhere() -> None:
    """There is no heading without an alert, and links inside the runbooks meet a heading or a file."""
    headings = re.findall(r"^## (.+)$", runbooks(), re.MULTILINE)
    assert set(headings) == set(ALERTS)
    for link in re.findall(r"\]\(([^)]+)\)", runbooks()):
        assert link.removeprefix("#") in map(str.lower, headings) or (FOLDER / link).is_file()
    (external,) = read_yaml(FOLDER / "prometheus.yml")["global"]["external_labels"].values()
    assert (ROOT / external).samefile(FOLDER / "RUNBOOKS.md")


def test_rules_ask_for_what_the_server_counts() -> None:
    """Every metric in a rule is one of the server's with its suffix, or is recorded by another rule."""
    suffixes = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {spec.name + suffix for spec in SPECS for suffix in suffixes[spec.kind]}
    for rule in rules():
        asked = set(re.findall(r"[\w:]*\bdin_\w+(?::\w+)?", rule["expr"]))
        assert asked <= known | RECORDS, rule
        assert asked or rule["alert"] in {"DinserveDown", "DinserveAbsent"}


def test_objective_counts_our_failures() -> None:
    """The error ratio counts what the server failed to answer, and never a caller's mistake."""
    ours = {error.code for error in (Overloaded, NotReady, DeadlineExceeded, Internal)}
    assert {error.code for error, status in STATUS.items() if status >= 500} == ours
    ratios = [rule["expr"] for rule in rules() if rule.get("record", "").startswith("job:din_errors:ratio")]
    for expression in ratios:
        (codes,) = re.findall(r'code=~"([^"]+)"', expression)
        assert set(codes.split("|")) == ours | {"ok"}


def test_windows_are_what_their_names_say() -> None:
    """A recorded rate is over the time in its name."""
    for rule in rules():
        named = re.search(r"(?:rate|utilisation|mean|p50_|p99_)(\d+[mhd])$", rule.get("record", ""))
        if named:
            assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {named[1]}
