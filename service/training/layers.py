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
        real = tf.ones(tf.shape(x)[:-1], tf.bool) if mask is None else mask  # (...)
        count, axes = tf.math.count_nonzero(real, dtype=tf.float32), list(range(len(x.shape) - 1))

        def mean_of(values: Tensor) -> Tensor:  # (..., units) to (units,)
            return tf.reduce_sum(tf.where(real[..., None], values, 0.0), axes) / tf.maximum(count, 1.0)

        mean = mean_of(x)
        variance = mean_of(tf.square(x - tf.stop_gradient(mean)))  # through its mean a variance has no gradient
        mean, variance = tf.where(count > 0, mean, self.mean), tf.where(count > 0, variance, self.variance)
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


class BatchNorm(tf.Module):
    """Batch normalisation (Ioffe and Szegedy, 2015): batch moments in training, moving averages in serving.

    An `idle` one maps everything to itself and learns nothing: a served network has one before its head in any case.
    """

    def __init__(self, size: int, name: str, *, idle: bool = False) -> None:
        super().__init__(name)
        self.idle = idle
        gamma = (1 + NORM_EPSILON) ** 0.5 if idle else 1.0
        self.gamma = tf.Variable(tf.fill((size,), gamma), trainable=not idle, name="gamma")
        self.beta = tf.Variable(tf.zeros((size,)), trainable=not idle, name="beta")
        self.mean = tf.Variable(tf.zeros((size,)), trainable=False, name="mean")
        self.variance = tf.Variable(tf.ones((size,)), trainable=False, name="variance")

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Normalise (N, size) over N."""
        mean, variance = self.mean, self.variance
        if training and not self.idle:
            mean, variance = tf.nn.moments(x, 0)
            self.mean.assign(MOMENTUM * self.mean + (1 - MOMENTUM) * mean)
            self.variance.assign(MOMENTUM * self.variance + (1 - MOMENTUM) * variance)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, NORM_EPSILON)


def drop(x: Tensor, rate: float, rng: tf.random.Generator) -> Tensor:
    """Dropout (Srivastava et al., 2014): each of x is 0 with the probability `rate`, and divided by 1 - rate if not."""
    return tf.where(rng.uniform(tf.shape(x)) < rate, 0.0, x / (1 - rate))


class Dense(tf.Module):
    """y = f(x W + b), W (inputs, units), Glorot uniform (Glorot and Bengio, 2010); `norm` stands before f."""

    def __init__(
        self,
        inputs: int,
        units: int,
        rng: tf.random.Generator,
        name: str,
        activation: Activation | Literal["linear"] = "linear",
        *,
        norm: bool = False,
    ) -> None:
        super().__init__(name)
        limit = (6.0 / (inputs + units)) ** 0.5
        self.kernel = tf.Variable(rng.uniform((inputs, units), -limit, limit), name="kernel")
        self.bias = tf.Variable(tf.zeros((units,)), name="bias")
        self.norm = BatchNorm(units, "norm") if norm else None
        self.activation = make_activation(activation, units)

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (..., units), (N, inputs) if there is a `norm`."""
        return self.finish(tf.tensordot(x, self.kernel, 1) + self.bias, training=training, mask=mask)

    def finish(self, sums: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map x W + b (..., units), however it was computed, to the same shape."""
        if self.norm is not None:
            sums = self.norm(sums, training=training)
        return self.activation(sums, training=training, mask=mask)


class Mlp(tf.Module):
    """Dense layers with an activation, and a linear last one of one unit.

    Args:
        inputs: size of what the first layer reads.
        hidden: units of every layer but the last.
        rng: draws the weights, and in training what is dropped.
        name: of the module.
        activation: of every layer but the last.
        norm: whether batch normalisation stands before each activation.
        dropout: share of the hidden layers' outputs that is dropped in training.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        rng: tf.random.Generator,
        name: str,
        activation: Activation = "relu",
        *,
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(name)
        self.dropout = dropout
        if dropout:
            self.rng = rng  # kept, and so saved with a checkpoint, only where it is needed again
        sizes = list(pairwise([inputs, *hidden]))
        self.layers = [Dense(a, b, rng, f"layer{i}", activation, norm=norm) for i, (a, b) in enumerate(sizes)]
        self.layers.append(Dense([inputs, *hidden][-1], 1, rng, f"layer{len(sizes)}"))

    def __call__(self, x: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """Map (..., inputs) to (...,); `mask` (...) says which entries are real, all by default."""
        first = self.layers[0]
        return self.finish(tf.tensordot(x, first.kernel, 1) + first.bias, training=training, mask=mask)

    def finish(self, sums: Tensor, *, training: bool = False, mask: Tensor | None = None) -> Tensor:
        """The same from the first layer's x W + b (..., units) on, however that was computed."""
        first, *rest = self.layers
        x = first.finish(sums, training=training, mask=mask)
        for layer in rest:
            x = drop(x, self.dropout, self.rng) if training and self.dropout else x
            x = layer(x, training=training, mask=mask)
        return tf.squeeze(x, -1)
