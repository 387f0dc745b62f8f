"""The models that are measured: the committed one, and one of the seed notebook's sizes with random weights."""

import sys
from pathlib import Path

COMMITTED = Path(__file__).parents[1] / "model_artifacts" / "din"
SEED = 20180823


def export_seed_sizes(out: Path, max_history: int = 200) -> Path:
    """Export a model of dimension 8, attention 32-16, head 16-8 into the model folder `out`; returns the version's."""
    import numpy as np

    from service.artifact import Architecture, Feature, Features
    from service.training.din import Din
    from service.training.export import Origin, export

    sizes = {"dtype": "int64", "dimension": 8, "max_history": max_history}
    features = Features(
        id=Feature.model_validate({**sizes, "buckets": 1 << 16}),
        tag=Feature.model_validate({**sizes, "buckets": 1 << 8}),
    )
    din = Din(features, Architecture(attention_hidden=(32, 16), head_hidden=(16, 8)), SEED)
    randomise(din, np.random.default_rng(SEED))
    known = np.arange(1, 5001, dtype=np.int64)
    return export(din, out, (known, known % 20), Origin())


def randomise(din: object, rng: object) -> None:
    """Draw every weight anew, wide enough that attention is uneven and probabilities spread over (0, 1)."""
    import numpy as np

    assert isinstance(rng, np.random.Generator)
    for variable in din.variables:  # type: ignore[attr-defined]  # a tf.Module, which has no types
        name, shape = variable.name, tuple(variable.shape)
        if name.startswith(("variance", "gamma")):
            drawn = rng.uniform(0.5, 2.0, shape)
        elif name.startswith("kernel"):
            drawn = rng.normal(0, 1.5 / np.sqrt(shape[0]), shape)
        else:  # tables, biases, beta, mean
            drawn = rng.normal(0, 0.3, shape)
        variable.assign(drawn.astype(np.float32))


if __name__ == "__main__":
    print(f'"{export_seed_sizes(Path(sys.argv[1]))}"')
