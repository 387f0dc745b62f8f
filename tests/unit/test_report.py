import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import artifact
from service.artifact import Manifest, Quality, Training
from service.errors import DataError
from service.training import Split, evaluate, plots, publish, report
from service.training.markdown import describe, to_markdown
from service.training.report import Report
from tests.fakes import MANIFEST, write_version
from tests.labelled import make_split

TRAINING = Training(data="drawn", rows=64, test_rows=36, epochs=1, batch_rows=2, learning_rate=0.1, seed=7)
POOLED = MANIFEST.model_copy(
    update={"training": TRAINING, "metrics": {"pooling": Quality(auc=0.6, gauc=0.6, logloss=0.5)}}
)
SPLIT = make_split()
SCORE = np.random.default_rng(1).uniform(0.1, 0.9, len(SPLIT.test)).astype(np.float32)


def make(manifest: Manifest = POOLED, split: Split = SPLIT) -> Report:
    """Report on random probabilities."""
    return report.make_report(manifest, split, SCORE, seed=3, draws=100)


def test_report_is_of_the_test_rows() -> None:
    """The headline has every metric with its interval, and says what it is of; baselines have the same metrics."""
    made = make()
    found, quality = made.evaluation, evaluate.quality(SPLIT.test.label, SCORE, SPLIT.test.user)
    assert (found.data, found.rows, found.users, found.clicks, found.seed, found.draws) == ("drawn", 36, 6, 0.5, 3, 100)
    assert set(found.figures) == {"auc", "gauc", "logloss", "ece", "ndcg"}
    assert found.figures["auc"].value == pytest.approx(quality.auc)
    assert all(each.low <= each.high for each in found.figures.values())
    assert set(made.baselines) == {"popularity", "item mean", "logistic regression"}
    assert all(set(each) == set(found.figures) for each in made.baselines.values())
    assert sum(each.rows for each in made.by_history) == sum(each.rows for each in made.by_popularity) == 36
    assert sum(each.rows for each in made.reliability) == 36
    ece = sum(each.rows * abs(each.predicted - each.clicks) for each in made.reliability) / 36
    assert found.figures["ece"].value == pytest.approx(ece)
    again = make()
    same_time = again.evaluation.model_copy(update={"created": found.created})  # the clock may have ticked
    assert again.model_copy(update={"evaluation": same_time}) == made  # the same seed gives the same report


def test_rela_impr_by_hand() -> None:
    """0.7 is twice as far from a coin as 0.6; without a base there is no comparison."""
    assert report.rela_impr(0.7, 0.6) == pytest.approx(1.0)
    assert report.rela_impr(0.55, 0.6) == pytest.approx(-0.5)
    assert report.rela_impr(0.7, None) is report.rela_impr(0.7, 0.5) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({}, True, id="same-rows"),
        pytest.param({"training": None}, False, id="no-training"),
        pytest.param({"metrics": {}}, False, id="no-pooling"),
        pytest.param({"training": TRAINING.model_copy(update={"test_rows": 35})}, False, id="other-rows"),
        pytest.param({"training": TRAINING.model_copy(update={"data": "other"})}, False, id="other-data"),
    ],
)
def test_pooling_must_be_of_the_same_rows(change: dict[str, Any], told: bool) -> None:
    """RelaImpr is told where training left the AUC of mean pooling on these very rows, and left out elsewhere."""
    made = make(POOLED.model_copy(update=change))
    assert (made.evaluation.rela_impr is not None) == told
    assert ("RelaImpr" in to_markdown(made)) == told


def test_page_tells_every_figure() -> None:
    """Every figure of every scorer and slice is on the page as it is in the report, and tables are whole."""
    made = make()
    page = to_markdown(made)
    slices = [*made.by_history, *made.by_popularity]
    shown = [each for figures in (made.evaluation.figures, *made.baselines.values()) for each in figures.values()]
    shown += [each.figures[name] for each in slices for name in ("auc", "gauc", "logloss") if name in each.figures]
    assert all(describe(figure) in page for figure in shown)
    assert all(line.endswith(" |") for line in page.splitlines() if line.startswith("|"))
    assert describe(None) == "-"


def test_drawn_negatives_are_told() -> None:
    """Where negatives were drawn the manifest says how many, and the page that probabilities are no real rates."""
    assert "Negatives were drawn" not in to_markdown(make())
    made = make(split=replace(SPLIT, negatives=4))
    assert made.evaluation.negatives == 4
    assert "Negatives were drawn, 4 for each positive" in to_markdown(made)


def test_pictures_are_png(tmp_path: Path) -> None:
    """Both pictures are drawn without a display."""
    for draw in (plots.draw_reliability, plots.draw_slices):
        draw(make(), tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "picture.png").unlink()


def test_one_user_is_refused() -> None:
    """Rows of one user give an error that says so."""
    with pytest.raises(DataError, match="are of one user"):
        report.make_report(POOLED, make_split(users=1), SCORE[:6], seed=1)


def test_published_report_is_sealed(tmp_path: Path) -> None:
    """The manifest has the headline and the report's sums, all else as it was; nothing else is left behind."""
    version = write_version(tmp_path)
    before = artifact.read_manifest(version)
    made = make()
    for _ in range(2):  # a second report takes the place of the first
        folder = publish.publish(version, artifact.read_manifest(version), made)
    after = artifact.read_manifest(version)
    assert after.evaluation == made.evaluation
    assert artifact.same_model(after, before)
    names = {"reliability.png", "report.json", "report.md", "slices.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert {name for name in after.files if name not in before.files} == {f"report/{name}" for name in names}
    assert json.loads((folder / "report.json").read_text())["evaluation"]["figures"]["auc"]
    assert Report.model_validate_json((folder / "report.json").read_bytes()) == made
    artifact.check_files(version, after)
    artifact.check_report(version, after)
    assert artifact.checksums(version) == after.files


def test_failing_report_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the report cannot be written the manifest is the old one, and no half report is left."""
    version = write_version(tmp_path)
    before = (version / artifact.MANIFEST).read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "draw_slices", fail)
    with pytest.raises(OSError, match="No space"):
        publish.publish(version, artifact.read_manifest(version), make())
    assert (version / artifact.MANIFEST).read_bytes() == before
    assert list((version / "report").iterdir()) == []
