"""The learning rate at each step."""

import math

from service.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, epoch_steps: int) -> float:
    """The rate of the step after `step` others, where an epoch has `epoch_steps` of them.

    It rises linearly over the warm-up. Meanwhile and after, `cosine` falls along half a cosine, to 0 at the end of the
    recipe's last epoch (Loshchilov and Hutter, ICLR 2017, formula 5 without restarts), `step` by a factor after each.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(1.0, step / (recipe.epochs * epoch_steps)))) / 2
    elif recipe.schedule == "step":
        rate *= recipe.decay ** (step // epoch_steps)
    return rate * min(1.0, (step + 1) / max(1.0, recipe.warm_up * epoch_steps))
