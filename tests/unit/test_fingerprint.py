import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service.engine.native import _forward

LARGEST = 2**63 - 1  # buckets; what is left of a hash after division shows nearly all of its bits
INT64S = [sign * (10**power + step) for sign in (1, -1) for power in range(19) for step in (-1, 0, 1)]


def hash_with_tensorflow(texts: list[bytes], buckets: int) -> list[int]:
    """What TensorFlow's layer for string features answers."""
    found: list[int] = tf.strings.to_hash_bucket_fast(tf.constant(texts, tf.string), buckets).numpy().tolist()
    return found


def test_text_of_every_length() -> None:
    """Random bytes of every length from 0 to 300, where the algorithm changes four times, hash as in TensorFlow."""
    rng = np.random.default_rng(1)
    texts = [rng.bytes(length) for length in range(301) for _ in range(20)]
    texts += [bytes([byte]) * length for byte in (0, 127, 128, 255) for length in range(301)]
    for buckets in (LARGEST, 1000, 7, 1):
        assert [_forward.fingerprint(text) % buckets for text in texts] == hash_with_tensorflow(texts, buckets)


def test_long_text() -> None:
    """Text of thousands of bytes hashes as in TensorFlow."""
    texts = [np.random.default_rng(length).bytes(length) for length in (1000, 4095, 4096, 4097, 100_001)]
    assert [_forward.fingerprint(text) % LARGEST for text in texts] == hash_with_tensorflow(texts, LARGEST)


def test_numbers() -> None:
    """Numbers of every count of digits and the ends of int64 hash, as decimal text, as in the exported graph."""
    numbers = [*INT64S, 2**63 - 1, -(2**63)]
    texts = [str(number).encode() for number in numbers]
    assert tf.strings.as_string(tf.constant(numbers, tf.int64)).numpy().tolist() == texts
    assert [_forward.fingerprint(text) % LARGEST for text in texts] == hash_with_tensorflow(texts, LARGEST)
