"""Labelled samples written out by hand."""

from collections.abc import Sequence

import numpy as np

from service.training import Samples, Split


def make_samples(
    item: Sequence[int] | Sequence[bytes],
    label: Sequence[int],
    *,
    tag: Sequence[int] | None = None,
    user: Sequence[int] | None = None,
    history: Sequence[Sequence[int]] | None = None,
) -> Samples:
    """Samples (N) of user 0, tag 0 and no history unless told; a history's values are its ids and its tags alike."""
    histories = [[]] * len(item) if history is None else history
    stop = np.cumsum([len(each) for each in histories], dtype=np.int64)
    start = np.concatenate([[0], stop[:-1]]).astype(np.int64)
    event = np.array([value for each in histories for value in each], np.int64)
    zeros = [0] * len(item)
    return Samples(
        event_id=event,
        event_tag=event,
        id_start=start,
        id_stop=stop,
        tag_start=start,
        tag_stop=stop,
        target_id=np.array(item, object if isinstance(item[0], bytes) else np.int64),
        target_tag=np.array(zeros if tag is None else tag, np.int64),
        label=np.array(label, np.float32),
        user=np.array(zeros if user is None else user, np.int64),
    )


def make_split(seed: int = 1, users: int = 6) -> Split:
    """Some random samples of a few users, each of whom has both classes."""
    rng = np.random.default_rng(seed)

    def part(rows: int) -> Samples:
        history = [rng.integers(0, 9, length).tolist() for length in rng.integers(0, 8, users * rows)]
        return make_samples(
            item=rng.integers(0, 9, users * rows).tolist(),
            label=[row % 2 for row in range(users * rows)],
            tag=rng.integers(0, 5, users * rows).tolist(),
            user=np.repeat(np.arange(users), rows).tolist(),
            history=history,
        )

    train = part(8)
    validation = train.take(np.arange(0, len(train), 3))
    return Split(train, validation, part(6), "drawn")
