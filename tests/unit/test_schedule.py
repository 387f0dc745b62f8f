import pytest

from service.training.recipe import Recipe
from service.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        pytest.param({}, {0: 1, 9: 1, 39: 1}, id="constant"),
        pytest.param({"schedule": "step", "decay": 0.1}, {0: 1, 9: 1, 10: 0.1, 20: 0.01}, id="step"),
        pytest.param({"schedule": "cosine"}, {0: 1, 20: 0.5, 40: 0}, id="cosine"),
        pytest.param({"warm_up": 0.5}, {0: 0.2, 1: 0.4, 4: 1, 5: 1}, id="warm-up"),
        pytest.param({"warm_up": 2.0, "schedule": "step"}, {9: 0.5, 10: 0.275, 19: 0.5, 20: 0.25}, id="both"),
    ],
)
def test_learning_rate(options: dict[str, object], rates: dict[int, float]) -> None:
    """The rate rises over the warm-up and then stays, halves after each epoch, or falls along half a cosine to 0."""
    recipe = Recipe.model_validate({"learning_rate": 1.0, "epochs": 4, **options})
    found = {step: learning_rate(recipe, step, 10) for step in rates}
    assert found == pytest.approx(rates)
