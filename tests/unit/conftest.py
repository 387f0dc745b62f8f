"""Networks whose weights are far from their small initial values, and one of them exported, shared by the session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.artifact import Architecture, Feature, Features, Manifest, Quality, Training, read_manifest
from service.batch import Sample

MakeDin: TypeAlias = Callable[..., Any]
MakeSample: TypeAlias = Callable[..., Sample]

QUALITY = Quality(auc=0.75, gauc=0.7, logloss=0.5)
TRAINING = Training(data="drawn", rows=2, test_rows=1, epochs=1, batch_rows=2, learning_rate=0.1, seed=7)


@pytest.fixture(scope="session")
def make_din() -> MakeDin:
    """Build a network and give it weights that make every part of it matter: `make_din(dimension=4, softmax=False)`."""
    from service.training.din import Din

    def make(
        *,
        dimension: int = 8,
        max_history: int = 50,
        dtype: str = "int64",
        seed: int = 1,
        rows: dict[str, int] | None = None,
        blends: dict[str, Any] | None = None,
        maps: dict[str, Any] | None = None,
        input_norm: bool = True,
        layer_norm: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> Any:
        kind = {"dtype": dtype, "dimension": dimension, "max_history": max_history}
        features = Features(
            id=Feature.model_validate({"buckets": 512, **kind}), tag=Feature.model_validate({"buckets": 64, **kind})
        )
        architecture = Architecture(**options)
        norms = {"input_norm": input_norm, "layer_norm": layer_norm}
        din = Din(features, architecture, seed, rows, blends, maps=maps, **norms, dropout=dropout)
        rng = np.random.default_rng(seed)
        for each in din.variables:
            if not each.dtype.is_floating:
                continue  # maps
            each.assign(each + rng.normal(0, 0.2, each.shape))
        for each in din.variables:
            if each.name.startswith("variance"):
                each.assign(rng.uniform(0.05, 1.0, each.shape))
        return din

    return make


@pytest.fixture(scope="session")
def din(make_din: MakeDin) -> Any:
    """The network behind `exported`."""
    return make_din()


@pytest.fixture(scope="session")
def exported(din: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of `din`, on disk."""
    from service.training.export import Origin, export

    known = np.arange(40), np.arange(40) % 7
    return export(din, tmp_path_factory.mktemp("model") / "din", known, Origin(TRAINING, {"din": QUALITY}))


@pytest.fixture(scope="session")
def manifest(exported: Path) -> Manifest:
    """The contract of `exported`."""
    return read_manifest(exported)


@pytest.fixture(scope="session")
def make_sample() -> MakeSample:
    """Draw a request: `make_sample(rng, history, tags, candidates)`."""

    def make(rng: np.random.Generator, history: int, tags: int, candidates: int) -> Sample:
        return Sample(
            rng.integers(-(2**63), 2**63 - 1, history),
            rng.integers(0, 20, tags),
            rng.integers(-(2**63), 2**63 - 1, candidates),
            rng.integers(0, 20, candidates),
        )

    return make
