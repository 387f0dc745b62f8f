"""Train one network on rows of its tables: epochs, early stopping, the state that a checkpoint holds.

Dimension letters: N samples, n samples of one mini-batch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from service.artifact import Architecture, Features
from service.batch import Floats
from service.errors import DataError
from service.training import Samples, evaluate
from service.training.adam import Adam
from service.training.batches import Batches, by_length, in_order, shuffle
from service.training.checkpoints import Checkpoints
from service.training.din import Din, Inputs, Rows, graph
from service.training.layers import Tensor
from service.training.logs import Logs
from service.training.parts import Parts
from service.training.penalty import penalty
from service.training.recipe import Recipe
from service.training.schedule import learning_rate
from service.training.start import start_head
from service.training.vocabulary import replace_rows

EVALUATION_ROWS = 4096
LOGGED_STEPS = 50  # between two losses in the logs


@dataclass(frozen=True, slots=True)
class Task:
    """What one network learns from: ids and tags are rows of tables already, those of validation too."""

    features: Features
    architecture: Architecture
    train: Parts
    epochs: int  # most
    validation: Samples | None = None  # None: the last epoch is the best


class State(tf.Module):
    """Everything that decides how a training goes on: what a checkpoint holds."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        super().__init__("state")
        self.din = make_din(task, recipe)
        self.adam = Adam(self.din.trainable_variables, recipe.average)
        self.best = [tf.Variable(each, trainable=False) for each in self.din.variables]
        self.gauc = tf.Variable(np.full(task.epochs, np.nan), trainable=False)  # after each epoch
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)  # how many are over
        self.batch = tf.Variable(0, dtype=tf.int64, trainable=False)  # and batches of the one that runs
        self.samples = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.spent_s = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def best_epoch(self) -> int:
        """From 1; the first of equals."""
        return int(np.nanargmax(self.gauc.numpy())) + 1

    @property
    def samples_per_s(self) -> float:
        """In training so far."""
        return int(self.samples) / max(float(self.spent_s), 1e-9)

    def note(self, epoch: int, batch: int, progress: "Progress") -> None:
        """Set how far the training is."""
        self.epoch.assign(epoch)
        self.batch.assign(batch)
        self.samples.assign(progress.samples)
        self.spent_s.assign(progress.spent_s)

    def stopped(self, patience: int) -> bool:
        """Whether no epoch follows."""
        epoch = int(self.epoch)
        return epoch == self.gauc.shape[0] or (epoch > 0 and epoch - self.best_epoch >= patience)

    def copy_to(self, judged: Din) -> None:
        """Give another network the weights of this moment, their averages where they are averaged."""
        averages = {id(each): average for each, average in zip(self.adam.weights, self.adam.averages, strict=False)}
        _assign(judged.variables, [averages.get(id(each), each) for each in self.din.variables])


class Progress:
    """Samples trained on, and the time that took, those before a resume included."""

    def __init__(self, samples: int, spent_s: float) -> None:
        self.samples = samples
        self._began = time.monotonic() - spent_s

    def add(self, samples: int) -> None:
        """A batch is done."""
        self.samples += samples

    @property
    def spent_s(self) -> float:
        """Seconds."""
        return time.monotonic() - self._began


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best network of a fit."""

    din: Din
    epochs: int  # after how many it was best
    samples_per_s: float


@dataclass(slots=True)
class Fit:
    """Trains a network; `run` does it all.

    Args:
        task: what it learns from.
        recipe: how.
        name: what its lines are headed with.
        report: takes a line after each epoch.
        checkpoints: where its state goes.
        logs: where its curves go.
    """

    task: Task
    recipe: Recipe
    name: str
    report: Callable[[str], None] = print
    checkpoints: Checkpoints = field(default_factory=lambda: Checkpoints(None))
    logs: Logs = field(default_factory=lambda: Logs(None))
    _whole: Batches | None = None  # the only part, which stays loaded

    def run(self) -> Fitted:
        """Train until there are no more epochs, or `patience` of them without a better validation GAUC.

        Raises:
            DataError: loss or weights are not finite.
        """
        state = State(self.task, self.recipe)
        self.checkpoints.restore(state)
        judged = make_din(self.task, self.recipe)  # holds the weights that are looked at
        step = make_step(state, self.task, self.recipe)
        while not state.stopped(self.recipe.patience):
            speed = self._epoch(state, step)
            self._judge(state, judged, speed)
            if self.checkpoints.due:
                self.checkpoints.save()
        _assign(judged.variables, state.best)
        return Fitted(judged, state.best_epoch, state.samples_per_s)

    def _epoch(self, state: State, step: Callable[..., Tensor]) -> float:
        """Take the steps of one epoch, or those that are left of it; returns samples a second."""
        epoch, steps, first = int(state.epoch), self._steps, int(state.batch)
        samples, spent_s = int(state.samples), float(state.spent_s)
        progress = Progress(samples, spent_s)
        loss = np.float32(0)
        with tqdm(
            total=steps, initial=first, desc=f"epoch {epoch + 1}", unit="batch", disable=None, leave=False
        ) as bar:
            for number, (rows, label) in enumerate(self._batches(epoch, first), first + 1):
                taken = epoch * steps + number - 1
                rate = learning_rate(self.recipe, taken, steps)
                loss = step(rows, label, tf.constant(rate, tf.float32), tf.constant(taken, tf.int64))
                progress.add(len(label))
                bar.update()
                if taken % LOGGED_STEPS == 0:
                    self.logs.write(taken, loss=loss, learning_rate=rate)
                if self.checkpoints.due:
                    state.note(epoch, number, progress)
                    self.checkpoints.save()
        # The loss precedes its step, and relu hides NaN: what the last step did shows in the weights only.
        if not all(np.isfinite(each).all() for each in (loss, *state.din.variables)):
            raise DataError(f"loss or weights are not finite after epoch {epoch + 1}; a lower learning rate may help")
        state.note(epoch + 1, 0, progress)
        return (progress.samples - samples) / max(progress.spent_s - spent_s, 1e-9)

    def _judge(self, state: State, judged: Din, speed: float) -> None:
        """Say how good the network is after an epoch, and keep its weights if they are the best so far."""
        epoch, part = int(state.epoch), self.task.validation
        state.copy_to(judged)
        if part is None:
            score, figures = float(epoch), ""  # later is better
        else:
            found = evaluate.quality(part.label, predict(judged, part), part.user)
            score = found.gauc
            figures = f"validation AUC {found.auc:.4f} GAUC {found.gauc:.4f} logloss {found.logloss:.4f}, "
            self.logs.write(epoch * self._steps, auc=found.auc, gauc=found.gauc, logloss=found.logloss)
        state.gauc[epoch - 1].assign(np.float64(score))
        if state.best_epoch == epoch:
            _assign(state.best, judged.variables)
        self.logs.write(epoch * self._steps, samples_per_s=speed)
        self.report(f"{self.name}, epoch {epoch}: {figures}{speed:,.0f} samples/s")

    @property
    def _steps(self) -> int:
        """Of an epoch."""
        return sum(-(-size // self.recipe.batch_rows) for size in self.task.train.sizes)

    def _batches(self, epoch: int, done: int) -> Iterator[tuple[Rows, Tensor]]:
        """The batches of an epoch after the first `done`, a part being loaded while the one before is trained on."""
        parts, rows = self.task.train.parts, self.recipe.batch_rows
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(parts)).tolist()
        left: list[tuple[int, int]] = []  # parts, and their first batch
        for number in order:
            steps = -(-self.task.train.sizes[number] // rows)
            if done < steps:
                left.append((number, done))
            done = max(0, done - steps)
        with ThreadPoolExecutor(1) as loader:
            coming = loader.submit(self._load, left[0][0]) if left else None
            for at, (number, first) in enumerate(left):
                assert coming is not None  # noqa: S101 - there is one for each that is left
                batches = coming.result()
                coming = loader.submit(self._load, left[at + 1][0]) if at + 1 < len(left) else None
                rng = np.random.default_rng([self.recipe.seed, epoch, number])
                if self.task.train.redraw is not None:
                    batches = Batches(self.task.train.redraw(rng), rows)
                yield from batches(shuffle(batches.samples, rows, rng), first)

    def _load(self, number: int) -> Batches:
        if len(self.task.train.parts) > 1:
            return Batches(self.task.train.parts[number](), self.recipe.batch_rows)
        if self._whole is None:
            self._whole = Batches(self.task.train.parts[0](), self.recipe.batch_rows)
        return self._whole


def make_din(task: Task, recipe: Recipe) -> Din:
    """A network with the weights it starts from."""
    vocabularies = task.train.vocabularies
    din = Din(
        task.features,
        task.architecture,
        recipe.seed,
        {name: each.embeddings for name, each in vocabularies.items()},
        {name: each.blend for name, each in vocabularies.items() if each.blend is not None},
        input_norm=recipe.input_norm,
        layer_norm=recipe.layer_norm,
        dropout=recipe.dropout,
    )
    if task.train.start is not None:
        task.train.start.give(din)
    if recipe.head_start != "random":
        start_head(din, product=recipe.head_start == "product")
    return din


def make_step(state: State, task: Task, recipe: Recipe) -> Callable[[Rows, Tensor, Tensor, Tensor], Tensor]:
    """One step on a batch and its labels (n,), at a learning rate (), after a number of others (); returns the loss.

    The loss is the mean logloss, clicks weighted as the recipe says; what is penalised is added to it for the gradient.
    """
    din = state.din
    vocabularies = {name: each.replaced(recipe.replace_rate) for name, each in task.train.vocabularies.items()}
    weights = din.trainable_variables
    kernels = [each for each in weights if each.name.startswith("kernel")]

    def step(rows: Inputs, label: Tensor, rate: Tensor, number: Tensor) -> Tensor:
        if recipe.replace_rate:
            rows = replace_rows(rows, recipe.replace_rate, tf.stack([tf.constant(recipe.seed, tf.int64), number]))
        with tf.GradientTape() as tape:
            each = tf.nn.sigmoid_cross_entropy_with_logits(label, din.logits(rows, training=True))  # (n,)
            weight = 1 + (recipe.positive_weight - 1) * label
            loss = tf.reduce_sum(weight * each) / tf.reduce_sum(weight)
            total = loss
            if recipe.l2:
                total += penalty(din, rows, vocabularies, recipe.l2)
            if recipe.l2_dense:
                total += recipe.l2_dense / 2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
        state.adam.apply(tape.gradient(total, weights), rate)
        return loss

    compiled: Callable[[Rows, Tensor, Tensor, Tensor], Tensor] = graph(step, reduce_retracing=True)
    return compiled


def predict_logits(din: Din, samples: Samples) -> Floats:
    """Log-odds of a click (N,), in order, of samples whose values are what `din` takes: rows, or served buckets."""
    sequence, one = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32)

    def logits(rows: Rows) -> Tensor:  # a function of its own: TensorFlow warns of a method that many of its own trace
        return din.logits(rows)

    forward = graph(logits, input_signature=[Rows(sequence, sequence, one, one, one, one)])
    order = by_length(samples)
    return in_order([forward(rows).numpy() for rows, _ in Batches(samples, EVALUATION_ROWS)(order)], order)


def predict(din: Din, samples: Samples) -> Floats:
    """Click probabilities (N,), likewise."""
    probability: Floats = tf.sigmoid(predict_logits(din, samples)).numpy()
    return probability


def _assign(targets: Sequence[tf.Variable], sources: Sequence[tf.Variable]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.assign(source)
