"""What travels with an exported model: the manifest, the golden requests, the checksums.

A version is a folder `<model-dir>/<number>/` holding a SavedModel, `manifest.json`, `golden.json` and, where training
left them, the item ids it met, `seen_ids.bin`. An evaluation leaves `report/`, which no server reads.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, ValidationError, model_validator

from service.batch import Ids, Sample
from service.drift import Scores
from service.errors import ArtifactError
from service.evaluation import Evaluation
from service.seen import Seen

MANIFEST = "manifest.json"
GOLDEN = "golden.json"
REPORT = "report"  # folder
TOLERANCE = 1e-5  # float32 through a few hundred sums, whatever order the engine adds in
NORM_EPSILON = 1e-3  # what batch normalisation adds to a variance
DICE_EPSILON = 1e-8  # what Dice adds to one; the paper's figure

Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Column = list[Int64] | list[str]
Activation = Literal["relu", "sigmoid", "prelu", "dice"]
LEARNED: dict[Activation, tuple[str, ...]] = {  # the variables of each
    "relu": (),
    "sigmoid": (),
    "prelu": ("alpha",),
    "dice": ("alpha", "mean", "variance"),
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Frozen):
    """One kind of value (id or tag): how it is hashed and embedded, and how much history of it the model reads."""

    dtype: Literal["int64", "string"]
    buckets: int = Field(gt=0)
    dimension: int = Field(gt=0)
    max_history: int = Field(gt=0)
    default: Int64 | str | None = None  # what an item takes of which nothing is known

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default is not None and isinstance(self.default, str) != (self.dtype == "string"):
            raise ValueError(f"the default must be of the type {self.dtype}")
        return self


class Features(_Frozen):
    """The two features of a candidate and of a history."""

    id: Feature
    tag: Feature


class Architecture(_Frozen):
    """The network's sizes and options; `service.training.din` says what each does."""

    attention_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 16)
    attention_activation: Activation = "relu"
    head_hidden: tuple[PositiveInt, ...] = (16, 8)
    head_activation: Activation = "relu"
    softmax: bool = True
    shared_tables: bool = False
    pooling: Literal["attention", "mean"] = "attention"
    product: bool = False  # the head also reads pooled * target of each pair
    item_bias: bool = False  # every id has a number of its own, added to the log-odds


class RowSignature(_Frozen):
    """A signature with one row per candidate, and what it calls our six inputs."""

    name: str = "serving_default"
    output: str = "probability"
    seq_id: str = "seq_id"
    seq_tag: str = "seq_tag"
    seq_id_length: str = "seq_id_length"
    seq_tag_length: str = "seq_tag_length"
    target_id: str = "target_id"
    target_tag: str = "target_tag"


class BlockSignature(_Frozen):
    """A signature that takes each history once and candidates in blocks of `block`."""

    name: str = "score"
    block: int = Field(gt=0)


class Signatures(_Frozen):
    """The ways in; a SavedModel made elsewhere may have only `row`."""

    row: RowSignature = RowSignature()
    score: BlockSignature | None = None
    explain: BlockSignature | None = None


class Quality(_Frozen):
    """How well one scorer ranks and predicts held-out rows."""

    auc: float
    gauc: float
    logloss: float


class Training(_Frozen):
    """Where a version comes from."""

    data: str
    rows: int
    test_rows: int
    held_out: str | None = None  # sha256 of the test rows, to know them again
    epochs: int
    batch_rows: int
    learning_rate: float
    seed: int
    recipe: dict[str, JsonValue] | None = None  # every choice of the run; what is in it is the trainer's business
    samples_per_s: float | None = None
    scale: float | None = None  # what the weights hold of a calibration: log-odds * scale + shift
    shift: float | None = None


class Manifest(_Frozen):
    """The JSON contract that travels with a version."""

    format: Literal[1] = 1
    name: str = "din"
    version: str
    created: str  # ISO 8601, UTC
    features: Features
    architecture: Architecture | None = None  # None: a graph made elsewhere
    variables: dict[str, str] | None = None  # role in the architecture: checkpoint key, see README; None: unknown
    signatures: Signatures = Signatures()
    training: Training | None = None
    metrics: dict[str, Quality] = {}
    scores: Scores | None = None  # None: drift is not told
    seen: Seen | None = None  # None: whether ids are new is not told
    evaluation: Evaluation | None = None  # None: nobody has evaluated it
    files: dict[str, str] = {}  # relative path: sha256, of every file but the manifest itself

    @property
    def served_files(self) -> dict[str, str]:
        """`files` without those of the report."""
        return {name: each for name, each in self.files.items() if not is_reported(name)}

    @property
    def created_s(self) -> float | None:
        """When it was made, in Unix time; None if `created` is something else."""
        try:
            at = datetime.fromisoformat(self.created)
        except ValueError:
            return None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class History(_Frozen):
    """Golden form of a history."""

    ids: Column
    tags: Column


class Candidates(_Frozen):
    """Golden form of the candidates."""

    ids: Column
    tags: Column


class GoldenRequest(_Frozen):
    """A request with its known answer."""

    name: str
    history: History
    candidates: Candidates
    probabilities: list[float]


class Golden(_Frozen):
    """The golden requests of a version."""

    requests: list[GoldenRequest]


def to_array(values: list[int] | list[str], dtype: str) -> Ids:
    """Make a column of the wire into an engine's array: int64, or UTF-8 bytes as objects.

    Raises:
        OverflowError: a value does not fit int64.
    """
    if dtype == "int64":
        return np.array(values, np.int64)
    return np.array([str(value).encode() for value in values], object)


def to_sample(manifest: Manifest, history: tuple[Column, Column], candidates: tuple[Column, Column]) -> Sample:
    """Make (ids, tags) columns into a `Sample`, keeping the newest `max_history` of each sequence.

    Raises:
        OverflowError: a value does not fit int64.
    """
    features = manifest.features
    return Sample(
        to_array(history[0][-features.id.max_history :], features.id.dtype),
        to_array(history[1][-features.tag.max_history :], features.tag.dtype),
        to_array(candidates[0], features.id.dtype),
        to_array(candidates[1], features.tag.dtype),
    )


def golden_sample(manifest: Manifest, request: GoldenRequest) -> Sample:
    """Make a golden request into a `Sample`."""
    history, candidates = request.history, request.candidates
    return to_sample(manifest, (history.ids, history.tags), (candidates.ids, candidates.tags))


def versions(model_dir: Path) -> list[Path]:
    """The numbered folders of a model folder, lowest first; anything else in it is ignored.

    Raises:
        ArtifactError: the folder cannot be read.
    """
    try:
        found = [path for path in model_dir.iterdir() if path.is_dir()] if model_dir.is_dir() else []
    except OSError as error:
        raise ArtifactError(f"{model_dir}: cannot be read: {error.strerror}") from error
    numbered = [path for path in found if re.fullmatch(r"[1-9][0-9]{0,17}", path.name)]
    return sorted(numbered, key=lambda path: int(path.name))


def read_manifest(version: Path) -> Manifest:
    """Read a version's manifest.

    Raises:
        ArtifactError: it is missing, is not what a manifest is, or names another version than its folder.
    """
    manifest = _read(version / MANIFEST, Manifest)
    if manifest.version != version.name:
        raise ArtifactError(f"{version / MANIFEST}: says version {manifest.version}, the folder is {version.name}")
    return manifest


def read_golden(version: Path) -> Golden:
    """Read a version's golden requests.

    Raises:
        ArtifactError: they are missing, malformed or none.
    """
    golden = _read(version / GOLDEN, Golden)
    if not golden.requests:
        raise ArtifactError(f"{version / GOLDEN}: holds no request")
    return golden


def write_manifest(version: Path, manifest: Manifest) -> None:
    """Write the manifest with the checksum of every file now in the folder."""
    sealed = manifest.model_copy(update={"files": checksums(version)})
    (version / MANIFEST).write_text(sealed.model_dump_json(indent=1) + "\n")


def write_golden(version: Path, golden: Golden) -> None:
    """Write the golden requests, a line each."""
    lines = ",\n".join(request.model_dump_json() for request in golden.requests)
    (version / GOLDEN).write_text(f'{{"requests": [\n{lines}\n]}}\n')


def checksums(version: Path) -> dict[str, str]:
    """sha256 of every file of a version but the manifest, by relative path."""
    return {**_sums(version, served_paths(version)), **report_sums(version)}


def report_sums(version: Path) -> dict[str, str]:
    """sha256 of every file of a version's report, but for what is being written, which has a name with a dot."""
    return _sums(version, [path for path in (version / REPORT).glob("*") if not path.name.startswith(".")])


def served_paths(version: Path) -> list[Path]:
    """Files and folders of a version, but for its report, which may change while the version is read."""
    tops = [path for path in version.glob("*") if path.name != REPORT]
    return sorted(path for top in tops for path in (top, *top.rglob("*")))


def is_reported(name: str) -> bool:
    """Whether a path relative to its version is part of the report."""
    return name.startswith(f"{REPORT}/")


def same_model(manifest: Manifest, other: Manifest) -> bool:
    """Whether two manifests are equal but for an evaluation and its report."""
    mine, theirs = (
        each.model_copy(update={"evaluation": None, "files": each.served_files}) for each in (manifest, other)
    )
    return mine == theirs


def check_files(version: Path, manifest: Manifest) -> None:
    """Compare the folder's files with the manifest's checksums, the report excepted.

    Raises:
        ArtifactError: a file is missing, unlisted or altered.
    """
    _check_sums(version, manifest.served_files, lambda: _sums(version, served_paths(version)))


def check_report(version: Path, manifest: Manifest) -> None:
    """Compare the report's files with the manifest's checksums.

    Raises:
        ArtifactError: a file is missing, unlisted or altered.
    """
    listed = {name: each for name, each in manifest.files.items() if is_reported(name)}
    _check_sums(version, listed, lambda: report_sums(version))


def manifest_sum(version: Path) -> str:
    """sha256 of a version's manifest, and so, by the sums in it, of all its files. ArtifactError: it is unreadable."""
    return hashlib.sha256(_read_bytes(version / MANIFEST)).hexdigest()


def check_allowed(version: Path, allowed: Path) -> None:
    """Check that a version's manifest is in a list of sums: the first word of each line, as `sha256sum` writes them.

    Raises:
        ArtifactError: it is not, or one of the two files cannot be read.
    """
    found = manifest_sum(version)
    if found.encode() not in re.findall(rb"^\s*([0-9a-f]{64})\b", _read_bytes(allowed).lower(), re.MULTILINE):
        raise ArtifactError(f"{version / MANIFEST}: sha256 {found} is not among those that {allowed} allows")


def _check_sums(version: Path, listed: dict[str, str], find: Callable[[], dict[str, str]]) -> None:
    try:
        actual = find()
    except OSError as error:
        raise ArtifactError(f"{version}: cannot be read: {error.strerror}") from error
    for name in sorted(listed.keys() | actual.keys()):
        if name not in actual:
            raise ArtifactError(f"{version / name}: missing, the manifest lists it")
        if name not in listed:
            raise ArtifactError(f"{version / name}: not listed in the manifest")
        if actual[name] != listed[name]:
            raise ArtifactError(f"{version / name}: sha256 is not the manifest's")


def _sums(version: Path, paths: Iterable[Path]) -> dict[str, str]:
    named = {path.relative_to(version).as_posix(): path for path in paths if path.is_file()}
    return {name: _sha256(path) for name, path in sorted(named.items()) if name != MANIFEST}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_Model = TypeVar("_Model", bound=BaseModel)


def _read(path: Path, model: type[_Model]) -> _Model:
    content = _read_bytes(path)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: {place or 'file'}: {first['msg']}") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
