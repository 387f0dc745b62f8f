"""What a training run is told: every choice that is not the data, by name, from a TOML file and from flags."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from service.artifact import Architecture
from service.errors import SettingsError

NAMES = ("seed", "paper", "best", "ratings")  # files of this package
DEFAULT = "best"

OPTIONS = {  # help of the architecture's flags
    "attention_hidden": "layers of attention, such as 32,16",
    "attention_activation": "after each",
    "head_hidden": "layers of the head, such as 16,8",
    "head_activation": "after each",
    "softmax": "normalise the attention weights",
    "shared_tables": "one embedding of an item as a target and in histories",
    "pooling": "of histories",
    "product": "the head also reads pooled history times target",
    "item_bias": "a number of each item's own, added to the log-odds",
}

Counted = Literal["met", "clicks"]
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """The choices of a run; the descriptions are also the help of the command line's flags."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture = Field(Architecture(), description="sizes and options of the network")
    dimension: PositiveInt = Field(8, description="embedding dimension")
    id_buckets: PositiveInt = Field(1 << 16, description="hash buckets of ids")
    tag_buckets: PositiveInt = Field(1 << 8, description="hash buckets of tags")
    max_history: PositiveInt = Field(50, description="history the model reads")
    input_norm: bool = Field(True, description="batch normalisation before the head")
    layer_norm: bool = Field(False, description="batch normalisation in the head's hidden layers")
    dropout: Share = Field(0.0, description="share of the head's hidden outputs dropped in training")
    min_count: PositiveInt = Field(1, description="a value met less often has the default embedding")
    counted: Counted = Field("met", description="what min_count counts: every row, or those clicked")
    replace_rate: Share = Field(
        0.0, description="share of values replaced by the default one in training, so it learns"
    )
    id_knots: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="knots of what ids near each other in number share of their embeddings; 0 or 1: nothing"
    )
    id_start: Literal["random", "clicks"] = Field(
        "random", description="ids start by chance, or from which of them the same users clicked, and how often"
    )
    head_start: Literal["random", "zero", "product"] = Field(
        "random", description="the head starts by chance, at 0, or with a part of pooled history times target"
    )
    l2: NotNegative = Field(0.0, description="mini-batch aware L2 of embeddings")
    l2_dense: NotNegative = Field(0.0, description="L2 of the layers' kernels")
    epochs: PositiveInt = Field(3, description="most epochs tried")
    patience: PositiveInt = Field(3, description="epochs without a better validation GAUC after which training stops")
    batch_rows: PositiveInt = Field(256, description="rows in a training step")
    learning_rate: Positive = Field(2e-3, description="of Adam, at its highest")
    schedule: Literal["constant", "cosine", "step"] = Field("constant", description="what the learning rate does then")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="of schedule step: factor after each epoch")
    warm_up: NotNegative = Field(0.0, description="epochs, or a part of one, in which the learning rate rises from 0")
    sampling: Literal["next-item", "ratings"] = Field("next-item", description="what of a log of events is a sample")
    negatives: PositiveInt = Field(1, description="random items per click, of sampling next-item")
    resample: Literal["no", "drawn", "all"] = Field(
        "no", description="new negatives each epoch: for those drawn here, or for all rows not clicked"
    )
    positive_weight: Positive = Field(1.0, description="weight of a click in the loss, taken out of the log-odds after")
    correct_sampling: bool = Field(
        False, description="shift the log-odds to the click rate before negatives were drawn"
    )
    calibrate: bool = Field(False, description="Platt scaling on validation rows")
    average: Share = Field(
        0.0, description="decay of the moving average of weights that is kept; 0 keeps the last ones"
    )
    refit: bool = Field(True, description="train again on train and validation rows, as long as was best")
    twin: bool = Field(True, description="train and report a network with mean pooling too")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(1, description="seed of negatives, weights and order")

    @field_validator("head_start")
    @classmethod
    def _check_head(cls, value: str, info: ValidationInfo) -> str:
        """Check that a head can start with the product."""
        architecture = info.data.get("architecture")
        if value == "product" and architecture is not None:
            if not (architecture.product and info.data.get("layer_norm")):
                raise ValueError("product needs an architecture with product, and layer_norm")
            if min(architecture.head_hidden, default=1) < 2:  # noqa: PLR2004 - the product and its negative
                raise ValueError("product needs two units or more in each layer of the head")
        return value


def load_recipe(source: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe that a TOML file holds, with some of its values replaced.

    Args:
        source: a name of `NAMES`, or the path of a file. What a file leaves out has its default.
        overrides: values by name; those of the architecture stand beside the others.

    Raises:
        SettingsError: naming the file and the key that is unknown, or whose value is of another type or out of range;
            or the flag of the value among `overrides`.
    """
    recipe = _validate(_read(source), lambda key: f"recipe {source}: {'.'.join(key)}")
    if not overrides:
        return recipe
    values = recipe.model_dump(mode="json")
    for name, value in overrides.items():
        (values["architecture"] if name in OPTIONS else values)[name] = value
    return _validate(values, lambda key: "--" + next(part for part in key if part != "architecture").replace("_", "-"))


def fields() -> Iterator[tuple[str, FieldInfo, str]]:
    """Name, field and description of every value, the architecture's among them."""
    for name, field in Recipe.model_fields.items():
        if name == "architecture":
            yield from ((option, each, OPTIONS[option]) for option, each in Architecture.model_fields.items())
        else:
            yield name, field, str(field.description)


def _read(source: str) -> dict[str, Any]:
    try:
        if source in NAMES:
            return tomllib.loads(resources.files(__package__).joinpath("recipes", f"{source}.toml").read_text("utf-8"))
        return tomllib.loads(Path(source).read_text("utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"recipe {source}: no such file, and none of {', '.join(NAMES)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"recipe {source}: cannot be read: {error}") from error


def _validate(values: Mapping[str, Any], named: Callable[[list[str]], str]) -> Recipe:
    """Make a recipe of plain values, taking none for another type: lists are tuples, a whole number is a float too."""
    try:
        return Recipe.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = "is unknown" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{named([str(each) for each in first['loc']])}: {reason}") from error
