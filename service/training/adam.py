"""Adam (Kingma and Ba, ICLR 2015, algorithm 1) of all weights at once, and their moving average."""

from collections.abc import Sequence

import tensorflow as tf

from service.training.layers import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


class Adam(tf.Module):
    """Moves weights by their gradients; its state is saved with a checkpoint.

    Args:
        weights: what it moves. A table, of rows that training met only, moves whole: a row that a batch does not meet
            goes on as its moments say.
        average: decay of the weights' moving average, 0 for none.
    """

    def __init__(self, weights: Sequence[tf.Variable], average: float = 0.0) -> None:
        super().__init__("adam")
        self.weights, self.decay = list(weights), average
        self.means = [tf.Variable(tf.zeros_like(each), trainable=False) for each in weights]
        self.squares = [tf.Variable(tf.zeros_like(each), trainable=False) for each in weights]
        self.averages = [tf.Variable(each, trainable=False) for each in weights] if average else []
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def apply(self, gradients: Sequence[Tensor], rate: Tensor) -> None:
        """One step at the learning rate `rate` ()."""
        taken = tf.cast(self.steps.assign_add(1), tf.float32)
        for weight, mean, square, gradient in zip(self.weights, self.means, self.squares, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=BETA_1**taken,
                beta2_power=BETA_2**taken,
                lr=rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=tf.convert_to_tensor(gradient),  # that of a table comes as slices
            )
        # Early, when the average is of little, it forgets faster.
        decay = tf.minimum(self.decay, (1 + taken) / (10 + taken))
        for weight, average in zip(self.weights if self.decay else (), self.averages, strict=True):
            average.assign_add((1 - decay) * (weight - average))
