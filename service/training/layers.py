"""The layers a network is made of: dense ones, what stands between them, and batch normalisation.

Each takes any number of leading dimensions: rows, or rows and history entries.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import tensorflow as tf

from service.artifact import DICE_EPSILON, NORM_EPSILON, Activation

Tensor: TypeAlias = Any  # TensorFlow publishes no types

MOMENTUM = 0.95  # 0.99 still remembers its start after an epoch of a small data set


class PRelu(tf.Module):
    """x where x > 0, else alpha x, alpha learned for each unit (He et al., ICCV 2015, formula 1)."""

    def __init__(self, units: int) -> None:
        super().__init__("prelu")
        self.alpha = tf.Variable(tf.fill((units,), 0.25), name="alpha")  # where He et al. start

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., units) to the same shape."""
        return tf.where(x > 0, x, self.alpha * x)


class Dice(tf.Module):
    """PReLU whose corner is smooth and stands at the mean of the data (the DIN paper's formula 3).

    f(x) = p x + (1 - p) alpha x, p = sigmoid((x - E[x]) / sqrt(Var[x] + epsilon)): moments of the batch's real entries
    in training, moving averages in serving.
    """

    def __init__(self, units: int) -> None:
        super().__init__("dice")
        self.alpha = tf.Variable(tf.zeros((units,)), name="alpha")
        self.mean = tf.Variable(tf.zeros((units,)), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones((units,)), trainable=False, name="variance")

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., units) to the same shape; `mask` (...) says which entries are real, all by default."""
        mean, variance = self._moments(x, mask) if training else (self.mean, self.variance)
        p = tf.sigmoid((x - mean) / tf.sqrt(variance + DICE_EPSILON))
        return p * x + (1 - p) * self.alpha * x

    def _moments(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance (units,) of the real entries; where there is none, what was known before."""
        real = tf.reshape(x, (-1, x.shape[-1])) if mask is None else tf.boolean_mask(x, mask)  # (M, units)
        mean, variance = tf.nn.moments(real, 0)
        some = tf.shape(real)[0] > 0
        mean, variance = tf.where(some, mean, self.mean), tf.where(some, variance, self.variance)
        self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * mean)
        self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return mean, variance


def make_activation(name: Activation | Literal["linear"], units: int) -> Callable[..., Tensor]:
    """What follows a dense layer of `units`: called with x (..., units), `training` and `mask`, as `Dice` is."""
    if name == "prelu":
        prelu: Callable[..., Tensor] = PRelu(units)
        return prelu
    if name == "dice":
        dice: Callable[..., Tensor] = Dice(units)
        return dice
    plain: Callable[[Tensor], Tensor] = {"linear": lambda x: x, "relu": tf.nn.relu, "sigmoid": tf.sigmoid}[name]
    return lambda x, **_: plain(x)


class Dense(tf.Module):
    """y = f(x W + b), W (inputs, units), Glorot uniform (Glorot and Bengio, 2010)."""

    def __init__(
        self,
        inputs: int,
        units: int,
        rng: tf.random.Generator,
        name: str,
        activation: Activation | Literal["linear"] = "linear",
    ) -> None:
        super().__init__(name)
        limit = (6.0 / (inputs + units)) ** 0.5
        self.kernel = tf.Variable(rng.uniform((inputs, units), -limit, limit), name="kernel")
        self.bias = tf.Variable(tf.zeros((units,)), name="bias")
        self.activation = make_activation(activation, units)

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (..., units)."""
        return self.activation(tf.tensordot(x, self.kernel, 1) + self.bias, training=training, mask=mask)


class Mlp(tf.Module):
    """Dense layers with an activation, and a linear last one of one unit."""

    def __init__(
        self, inputs: int, hidden: Sequence[int], rng: tf.random.Generator, name: str, activation: Activation = "relu"
    ) -> None:
        super().__init__(name)
        sizes = list(pairwise([inputs, *hidden]))
        self.layers = [Dense(a, b, rng, f"layer{i}", activation) for i, (a, b) in enumerate(sizes)]
        self.layers.append(Dense([inputs, *hidden][-1], 1, rng, f"layer{len(sizes)}"))

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (...,); `mask` (...) says which entries are real, all by default."""
        for layer in self.layers:
            x = layer(x, training=training, mask=mask)
        return tf.squeeze(x, -1)


class BatchNorm(tf.Module):
    """Batch normalisation (Ioffe and Szegedy, 2015): batch moments in training, moving averages in serving."""

    def __init__(self, size: int, name: str) -> None:
        super().__init__(name)
        self.gamma = tf.Variable(tf.ones((size,)), name="gamma")
        self.beta = tf.Variable(tf.zeros((size,)), name="beta")
        self.mean = tf.Variable(tf.zeros((size,)), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones((size,)), trainable=False, name="variance")

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Normalise (N, size) over N."""
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(x, 0)
            self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * mean)
            self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, NORM_EPSILON)
