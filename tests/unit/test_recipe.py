import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.artifact import Architecture
from service.errors import SettingsError
from service.training.recipe import DEFAULT, NAMES, Recipe, load_recipe


@pytest.mark.parametrize("name", NAMES)
def test_recipe_comes_with_the_package(name: str) -> None:
    """Each named recipe is read, and is not another one."""
    assert isinstance(load_recipe(name), Recipe)
    assert len({load_recipe(each).model_dump_json() for each in NAMES}) == len(NAMES)
    assert DEFAULT in NAMES


def test_seed_recipe_holds_the_defaults() -> None:
    """The recipe `seed` says every value, and each is the default."""
    text = (Path(__file__).parents[2] / "service" / "training" / "recipes" / "seed.toml").read_text()
    said = tomllib.loads(text)
    assert said.keys() == Recipe.model_fields.keys()
    assert said["architecture"].keys() == Architecture.model_fields.keys()
    assert load_recipe("seed") == Recipe()


def test_paper_recipe_is_the_papers() -> None:
    """The recipe `paper` shares tables, does not normalise attention, and has Dice and mini-batch aware L2."""
    recipe = load_recipe("paper")
    network = recipe.architecture
    assert (network.shared_tables, network.softmax, network.head_activation) == (True, False, "dice")
    assert recipe.l2 > 0


def test_file_is_read_and_completed(tmp_path: Path) -> None:
    """A file's values stand, what it leaves out has its default, and a whole number is a float too."""
    (tmp_path / "my.toml").write_text("learning_rate = 1\n[architecture]\nhead_hidden = [5]\n")
    recipe = load_recipe(str(tmp_path / "my.toml"))
    assert recipe == Recipe(learning_rate=1.0, architecture=Architecture(head_hidden=(5,)))


def test_flags_override() -> None:
    """Values given beside a recipe replace its own, those of the architecture too, and nothing else changes."""
    recipe = load_recipe("paper", {"epochs": 7, "head_hidden": (9, 3), "softmax": True})
    paper = load_recipe("paper")
    network = paper.architecture.model_copy(update={"head_hidden": (9, 3), "softmax": True})
    assert recipe == paper.model_copy(update={"epochs": 7, "architecture": network})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("epochz = 3", "epochz: is unknown", id="unknown"),
        pytest.param("[architecture]\nsoftmx = true", "architecture.softmx: is unknown", id="unknown-inside"),
        pytest.param('epochs = "3"', "epochs: Input should be a valid integer", id="text"),
        pytest.param("epochs = 2.5", "epochs: Input should be a valid integer", id="fraction"),
        pytest.param("refit = 1", "refit: Input should be a valid boolean", id="number-for-truth"),
        pytest.param("dropout = 1.0", "dropout: Input should be less than 1", id="range"),
        pytest.param("learning_rate = nan", "learning_rate: Input should be", id="nan"),
        pytest.param("learning_rate = inf", "learning_rate: Input should be", id="infinite"),
        pytest.param("seed = 1979-05-27", "seed: Input should be a valid integer", id="date"),
        pytest.param('schedule = "linear"', "schedule: Input should be 'constant', 'cosine' or 'step'", id="choice"),
        pytest.param("[architecture]\nhead_hidden = [0]", "architecture.head_hidden.0: Input should be", id="size"),
        pytest.param('head_start = "product"', "head_start: product needs an architecture with product", id="head"),
        pytest.param("architecture = 3", "architecture: Input should be", id="no-table"),
        pytest.param("epochs = 3\nepochs = 4", "cannot be read: ", id="twice"),
        pytest.param("epochs", "cannot be read: ", id="no-toml"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    """What is unknown, ill-typed or out of range is refused with the file and the key."""
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"recipe {path}: {reason}")


@pytest.mark.parametrize(
    "values", [{"product": False}, {"layer_norm": False}, {"head_hidden": (8, 1)}, {"head_hidden": ()}]
)
def test_head_cannot_start_with_what_it_lacks(values: dict[str, Any]) -> None:
    """A head that starts with the product must read it, be normalised, and have room for it in each layer."""
    with pytest.raises(SettingsError, match="--head-start: product needs "):
        load_recipe("ratings", values)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, or is no text, is refused by name."""
    path = tmp_path / "my.toml"
    if content:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"recipe .*my\.toml: "):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("epochs", 0, "--epochs: "),
        ("head_hidden", (0,), "--head-hidden: "),
        ("dropout", 1.5, "--dropout: "),
        ("head_start", "product", "--head-start: product needs an architecture with product, and layer_norm"),
    ],
)
def test_bad_flag_is_refused_by_name(flag: str, value: Any, message: str) -> None:
    """A value given beside the recipe is refused as the flag it came by."""
    with pytest.raises(SettingsError, match=message):
        load_recipe("seed", {flag: value})
