from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from service import artifact
from service.artifact import Architecture, Feature, Features, Manifest
from service.engine.checkpoint import SUFFIX
from service.engine.native.variables import read_weights, shapes
from service.engine.native.weights import arrays_of
from service.errors import ArtifactError
from service.training.din import to_bucket
from service.training.export import Origin, export, variable_keys
from tests.unit.reference import Hashed, Network, draw_arrays, forward, forward_folded

MakeDin: TypeAlias = Callable[..., Any]

COMMITTED = Path(__file__).parents[2] / "model_artifacts" / "din" / "1"
TABLES = {"id": (20, 4), "tag": (9, 3)}
MAPS = {"id": np.arange(512, dtype=np.int32) % 30, "tag": np.arange(64, dtype=np.int32) % 9}
ARCHITECTURE = Architecture(attention_hidden=(6,), head_hidden=(5,), head_activation="dice")
SMALL = Manifest(
    version="1",
    created="2026-01-01T00:00:00+00:00",
    features=Features.model_validate(
        {
            name: Feature(dtype="int64", buckets=buckets, dimension=dimension, max_history=9)
            for name, (buckets, dimension) in TABLES.items()
        }
    ),
    architecture=ARCHITECTURE,
    variables={role: f"any/{role}" for role in shapes(TABLES, ARCHITECTURE)},
)


ROWS = np.array([5, 0, 6, 1, 0] * 4, np.int32)  # of the 20 buckets of ids in tables of 7
MAPPED = SMALL.model_copy(update={"variables": {**(SMALL.variables or {}), "rows_id": "any/rows_id"}})


def as_floats(values: Any) -> Any:
    """An array of single precision."""
    return np.array(values, np.float32)


def write_variables(version: Path, **changes: Any) -> dict[str, Any]:
    """Write a checkpoint of SMALL's variables into a version's folder, some changed; None leaves one out."""
    arrays: dict[str, Any] = draw_arrays(np.random.default_rng(1), TABLES, ARCHITECTURE)
    arrays = {role: array.astype(np.float32) for role, array in arrays.items()} | changes
    written = {f"any/{role}{SUFFIX}": array for role, array in arrays.items() if array is not None}
    folder = version / "variables"
    folder.mkdir(parents=True)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables"),
        tensor_names=list(written),
        shape_and_slices=[""] * len(written),
        tensors=list(written.values()),
    )
    return arrays


def hash_request(manifest: Manifest, request: artifact.GoldenRequest) -> Hashed:
    """A golden request as the network sees it."""
    sample, features = artifact.golden_sample(manifest, request), manifest.features

    def of(values: Any, feature: Feature) -> Any:
        return to_bucket(tf.constant(values, tf.int64), feature.buckets).numpy()

    return Hashed(
        (of(sample.seq_id, features.id), of(sample.seq_tag, features.tag)),
        (of(sample.target_id, features.id), of(sample.target_tag, features.tag)),
    )


def check_golden(version: Path, tolerance: float) -> None:
    """Compare the answers of a version's weights, folded and not, with the golden ones."""
    manifest = artifact.read_manifest(version)
    assert manifest.architecture is not None
    assert manifest.variables is not None
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    arrays = {role: reader.get_tensor(key + SUFFIX) for role, key in manifest.variables.items()}
    maps = {name: arrays.pop(f"rows_{name}") for name in ("id", "tag") if f"rows_{name}" in arrays}
    arrays = {role: each.astype(float) for role, each in arrays.items()}
    tables = {name: arrays[f"table_{name}"].shape for name in ("id", "tag")}
    network, weights = Network(manifest.architecture, tables, arrays, maps), read_weights(version, manifest)
    assert network.buckets == {"id": manifest.features.id.buckets, "tag": manifest.features.tag.buckets}
    for request in artifact.read_golden(version).requests:
        hashed = hash_request(manifest, request)
        for answer in (forward(network, hashed), forward_folded(weights, hashed)):
            np.testing.assert_allclose(answer[0], request.probabilities, atol=tolerance, rtol=0, err_msg=request.name)


def test_committed_version_is_read() -> None:
    """The variables of the committed version give its golden answers, without its graph."""
    check_golden(COMMITTED, 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"shared_tables": True, "head_hidden": ()}, id="shared-tables"),
        pytest.param({"pooling": "mean", "head_activation": "prelu"}, id="mean-pooling"),
        pytest.param({"attention_activation": "prelu", "head_activation": "sigmoid"}, id="prelu-and-sigmoid"),
        pytest.param({"attention_activation": "sigmoid", "attention_hidden": (5,)}, id="sigmoid"),
        pytest.param({"product": True, "item_bias": True, "shared_tables": True}, id="product-and-item-bias"),
        pytest.param(
            {"attention_activation": "dice", "head_activation": "dice", "attention_hidden": (9, 7, 5)}, id="dice"
        ),
        pytest.param({"maps": MAPS, "rows": {"id": 30, "tag": 9}, "item_bias": True}, id="maps"),
        pytest.param(
            {"maps": {"id": MAPS["id"]}, "rows": {"id": 30, "tag": 64}, "shared_tables": True}, id="map-of-ids"
        ),
    ],
)
def test_exported_version_is_read(make_din: MakeDin, tmp_path: Path, options: dict[str, Any]) -> None:
    """The variables of any exported version give its golden answers."""
    known = np.arange(40), np.arange(40) % 7
    check_golden(export(make_din(max_history=9, **options), tmp_path, known, Origin()), 1e-6)


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(Architecture(), id="default"),
        pytest.param(Architecture(pooling="mean", head_hidden=(), shared_tables=True), id="mean-pooling"),
        pytest.param(Architecture(attention_activation="dice", head_activation="prelu"), id="dice-and-prelu"),
        pytest.param(Architecture(product=True, item_bias=True), id="product-and-item-bias"),
        pytest.param(Architecture(attention_hidden=(1, 2, 3), head_hidden=(4,), head_activation="dice"), id="depths"),
    ],
)
@pytest.mark.parametrize("maps", [{}, {"id": 100}, {"id": 100, "tag": 30}], ids=["no-map", "map-of-ids", "maps"])
def test_every_role_is_exported(architecture: Architecture, maps: dict[str, int]) -> None:
    """What a manifest records are the roles that the reader wants, all of them and no other."""
    assert variable_keys(architecture, maps).keys() == shapes(TABLES, architecture, maps).keys()


def test_keys_are_the_manifests(tmp_path: Path) -> None:
    """A version made elsewhere is read by the keys that its manifest gives, whatever they are."""
    arrays = write_variables(tmp_path)
    weights = read_weights(tmp_path, SMALL)
    np.testing.assert_array_equal(weights.pairs[1].target_table, arrays["target_table_tag"])
    assert weights.pairs[0].table is not weights.pairs[0].target_table


def test_shared_key_is_read_once(tmp_path: Path) -> None:
    """Two roles with one key are one array."""
    write_variables(tmp_path)
    variables = {**(SMALL.variables or {}), "target_table_id": "any/table_id"}
    weights = read_weights(tmp_path, SMALL.model_copy(update={"variables": variables}))
    assert weights.pairs[0].table is weights.pairs[0].target_table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"architecture": None}, "architecture: not given", id="no-architecture"),
        pytest.param({"variables": None}, "variables: not given", id="no-variables"),
        pytest.param({"variables": {}}, "variables.attention_id.0.bias: missing", id="no-role"),
        pytest.param(
            {"variables": {**(SMALL.variables or {}), "head.0.gate": "any"}},
            "variables.head.0.gate: the architecture has no such variable",
            id="unknown-role",
        ),
        pytest.param(
            {"architecture": ARCHITECTURE.model_copy(update={"head_activation": "relu"})},
            "variables.head.0.alpha: the architecture has no such variable",
            id="other-activation",
        ),
    ],
)
def test_manifest_that_does_not_tell(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A manifest that does not describe every weight is refused, naming the place in it."""
    write_variables(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        read_weights(tmp_path, SMALL.model_copy(update=change))
    assert str(caught.value).startswith(f"{tmp_path / 'manifest.json'}: {message}")


@pytest.mark.parametrize(
    ("role", "array", "message"),
    [
        pytest.param("norm.beta", None, "is missing", id="missing"),
        pytest.param("norm.beta", np.zeros(13, np.float32), "has the shape (13,), not (14,)", id="shape"),
        pytest.param("table_id", np.zeros((4, 20), np.float32), "has the shape (4, 20), not (20, 4)", id="transposed"),
        pytest.param("head.1.bias", as_floats(0), "has the shape (), not (1,)", id="scalar"),
        pytest.param("norm.beta", np.zeros(14), "is float64, not float32", id="double"),
        pytest.param("norm.beta", np.array([b"0"] * 14), "is object, not float32", id="text"),
        pytest.param("head.1.bias", as_floats([np.nan]), "holds NaN or infinity", id="nan"),
        pytest.param("head.1.bias", as_floats([-np.inf]), "holds NaN or infinity", id="infinity"),
        pytest.param("head.0.variance", as_floats([1, 1, -1, 1, 1]), "is negative somewhere", id="variance"),
    ],
)
def test_variable_that_is_not_described(tmp_path: Path, role: str, array: Any, message: str) -> None:
    """A variable that is missing, of another shape or type, or no number is refused by its key and role."""
    write_variables(tmp_path, **{role: array})
    with pytest.raises(ArtifactError) as caught:
        read_weights(tmp_path, SMALL)
    assert str(caught.value) == f"{tmp_path / 'variables'}: any/{role} ({role}) {message}"


def write_mapped(version: Path, **changes: Any) -> dict[str, Any]:
    """The same for MAPPED: ids have tables of 7 rows, and a map."""
    tables = {f"{role}_id": np.ones((7, 4), np.float32) for role in ("table", "target_table")}
    return write_variables(version, **{**tables, "rows_id": ROWS, **changes})


def test_map_and_its_tables(tmp_path: Path) -> None:
    """Where a manifest names a map, tables have as many rows as they have, and the map one entry for each bucket."""
    write_mapped(tmp_path)
    weights = read_weights(tmp_path, MAPPED)
    ids, tags = weights.pairs
    assert ids.rows is not None
    assert ids.rows.dtype == np.int32
    np.testing.assert_array_equal(ids.rows, ROWS)
    assert (ids.table.shape, ids.target_table.shape, tags.table.shape, tags.rows) == ((7, 4), (7, 4), (9, 3), None)


@pytest.mark.parametrize(
    ("role", "array", "message"),
    [
        pytest.param("rows_id", None, "is missing", id="missing"),
        pytest.param("rows_id", ROWS.astype(np.int64), "is int64, not int32", id="int64"),
        pytest.param("rows_id", ROWS.astype(np.float32), "is float32, not int32", id="float32"),
        pytest.param("rows_id", ROWS[:-1], "has the shape (19,), not (20,)", id="short"),
        pytest.param("rows_id", np.tile(ROWS, 2), "has the shape (40,), not (20,)", id="long"),
        pytest.param("rows_id", ROWS[:, None], "has the shape (20, 1), not (20,)", id="column"),
        pytest.param("rows_id", ROWS + 1, "holds 7, which is no row of tables of 7", id="beyond"),
        pytest.param("rows_id", ROWS - 1, "holds -1, which is no row of tables of 7", id="negative"),
        pytest.param("rows_id", ROWS * 2**28, "holds 1342177280, which is no row of tables of 7", id="far-beyond"),
        pytest.param("table_id", np.ones((6, 4), np.float32), "holds 6, which is no row of tables of 6", id="table"),
        pytest.param("table_id", np.ones((0, 4), np.float32), "holds 5, which is no row of tables of 0", id="empty"),
        pytest.param("table_id", as_floats(0), "has the shape (), not (0, 4)", id="scalar"),
        pytest.param("target_table_id", np.ones((8, 4), np.float32), "has the shape (8, 4), not (7, 4)", id="target"),
        pytest.param("table_tag", np.ones((7, 3), np.float32), "has the shape (7, 3), not (9, 3)", id="no-map"),
    ],
)
def test_map_that_is_not_described(tmp_path: Path, role: str, array: Any, message: str) -> None:
    """A map of another type or length, or that leaves its tables, is refused by name, and so are tables that differ."""
    tables = {"target_table_id": array} if role == "table_id" and message.startswith("holds") else {}
    write_mapped(tmp_path, **tables, **{role: array})
    with pytest.raises(ArtifactError) as caught:
        read_weights(tmp_path, MAPPED)
    named = "rows_id" if message.startswith("holds") else role
    assert str(caught.value) == f"{tmp_path / 'variables'}: any/{named} ({named}) {message}"


def test_map_of_no_pair(tmp_path: Path) -> None:
    """A map of what the network does not have is no variable of it."""
    write_mapped(tmp_path)
    variables = {**(MAPPED.variables or {}), "rows_shop": "any/rows_id"}
    with pytest.raises(ArtifactError, match=r"variables\.rows_shop: the architecture has no such variable"):
        read_weights(tmp_path, MAPPED.model_copy(update={"variables": variables}))


def test_weights_beyond_single_precision(tmp_path: Path) -> None:
    """Weights that are numbers, but whose products are none in single precision, are refused."""
    write_variables(tmp_path, **{"norm.gamma": np.full(14, 3e38, np.float32), "norm.variance": as_floats([0] * 14)})
    with pytest.raises(ArtifactError, match="variables: weights too large to be folded in float32"):
        read_weights(tmp_path, SMALL)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    """A version without its variables is refused."""
    with pytest.raises(ArtifactError, match="variables: cannot be read: "):
        read_weights(tmp_path, SMALL)


@pytest.mark.parametrize(
    "file", [pytest.param("variables.index", id="index"), pytest.param("variables.data-00000-of-00001", id="data")]
)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[::-1], id="scrambled"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(None, id="removed"),
    ],
)
def test_damaged_checkpoint_is_refused(tmp_path: Path, file: str, damage: Callable[[bytes], bytes] | None) -> None:
    """A checkpoint that was cut, altered or lost in part is an error with its folder in it, never a crash."""
    write_variables(tmp_path)
    path = tmp_path / "variables" / file
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    with pytest.raises(ArtifactError, match="variables: cannot be read: "):
        read_weights(tmp_path, SMALL)


def test_every_array_is_finite() -> None:
    """What is read from the committed version is contiguous, of single precision but for the maps, and all numbers."""
    weights = read_weights(COMMITTED, artifact.read_manifest(COMMITTED))
    maps = [pair.rows for pair in weights.pairs]
    assert [each.dtype for each in maps if each is not None] == [np.int32, np.int32]
    for each in arrays_of(weights):
        assert each.dtype == (np.int32 if any(each is one for one in maps) else np.float32)
        assert each.flags.c_contiguous
        assert np.isfinite(each).all()
