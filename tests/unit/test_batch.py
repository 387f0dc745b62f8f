from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch import BlockBatch, Ids, Sample, pack_blocks

INTEGERS = st.integers(-(2**63), 2**63 - 1)
BLOCKS = st.integers(1, 7)


def column(values: list[Any]) -> Ids:
    """Make values into an engine's array: objects if they are bytes."""
    return np.array(values, object if values and isinstance(values[0], bytes) else np.int64)


@st.composite
def samples(
    draw: st.DrawFn, ids: st.SearchStrategy[Any], tags: st.SearchStrategy[Any], dtypes: tuple[Any, Any]
) -> Sample:
    """Draw a request with histories of any two lengths, empty ones among them."""
    count = draw(st.integers(1, 12))
    return Sample(
        np.array(draw(st.lists(ids, max_size=6)), dtypes[0]),
        np.array(draw(st.lists(tags, max_size=6)), dtypes[1]),
        np.array(draw(st.lists(ids, min_size=count, max_size=count)), dtypes[0]),
        np.array(draw(st.lists(tags, min_size=count, max_size=count)), dtypes[1]),
    )


NUMBERS = samples(INTEGERS, INTEGERS, (np.int64, np.int64))
TEXT_AND_NUMBERS = samples(st.binary(max_size=5), INTEGERS, (object, np.int64))
ANY = st.one_of(st.lists(NUMBERS, min_size=1, max_size=6), st.lists(TEXT_AND_NUMBERS, min_size=1, max_size=6))


def history(batch: BlockBatch, request: int) -> tuple[list[Any], list[Any]]:
    """Read one request's history back from a batch, without its padding."""
    ids = batch.seq_id[request, : batch.seq_id_length[request]]
    tags = batch.seq_tag[request, : batch.seq_tag_length[request]]
    return ids.tolist(), tags.tolist()


@given(ANY, BLOCKS)
def test_split_undoes_pack(packed: list[Sample], block: int) -> None:
    """Every sample's candidates and history come back from a batch, in order and of the same type."""
    batch = pack_blocks(packed, block)
    ids, tags = batch.split(batch.target_id), batch.split(batch.target_tag)
    for i, sample in enumerate(packed):
        assert history(batch, i) == (sample.seq_id.tolist(), sample.seq_tag.tolist())
        assert (ids[i].tolist(), tags[i].tolist()) == (sample.target_id.tolist(), sample.target_tag.tolist())
        assert (ids[i].dtype, tags[i].dtype) == (sample.target_id.dtype, sample.target_tag.dtype)


@given(ANY, BLOCKS)
def test_block_holds_one_request(packed: list[Sample], block: int) -> None:
    """The blocks that name a request hold its candidates and nothing but padding after them."""
    batch = pack_blocks(packed, block)
    assert batch.target_id.shape == batch.target_tag.shape == (len(batch.block_request), block)
    for i, sample in enumerate(packed):
        own = batch.target_id[batch.block_request == i].ravel().tolist()
        padding = b"" if sample.target_id.dtype == np.object_ else 0
        assert len(own) == -(-sample.rows // block) * block
        assert own == sample.target_id.tolist() + [padding] * (len(own) - sample.rows)


@given(ANY, BLOCKS)
def test_padding_is_a_share(packed: list[Sample], block: int) -> None:
    """The share of padding lies between none and all."""
    assert 0 <= pack_blocks(packed, block).padding <= 1


def test_batch_layout() -> None:
    """Two requests of three candidates and one, in blocks of two, have this layout."""
    first = Sample(column([1, 2, 3]), column([7]), column([10, 11, 12]), column([20, 21, 22]))
    second = Sample(column([4]), column([]), column([13]), column([23]))
    batch = pack_blocks([first, second], 2)
    assert batch.seq_id.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch.seq_tag.tolist() == [[7], [0]]
    assert (batch.seq_id_length.tolist(), batch.seq_tag_length.tolist()) == ([3, 1], [1, 0])
    assert batch.target_id.tolist() == [[10, 11], [12, 0], [13, 0]]
    assert batch.target_tag.tolist() == [[20, 21], [22, 0], [23, 0]]
    assert batch.block_request.tolist() == [0, 0, 1]
    assert {batch.block_request.dtype, batch.seq_id_length.dtype} == {np.dtype(np.int32)}
    assert batch.rows == (3, 1)
    # 3 blocks x 2 candidates x (3 ids + 1 tag) laid out; 3 candidates saw 3 + 1, one saw 1 + 0.
    assert batch.padding == pytest.approx(1 - 13 / 24)


def test_batch_of_bytes_is_padded_with_empty_ones() -> None:
    """Strings are padded with the empty string, which the engines take."""
    first = Sample(column([b"a", b"b"]), column([b"t"]), column([b"x"]), column([b"y"]))
    second = Sample(np.array([], object), np.array([], object), column([b"z"]), column([b"w"]))
    batch = pack_blocks([first, second], 2)
    assert batch.seq_id.tolist() == [[b"a", b"b"], [b"", b""]]
    assert batch.target_tag.tolist() == [[b"y", b""], [b"w", b""]]


def test_batch_of_empty_histories_has_one_column() -> None:
    """Histories that are all empty keep a column, all of it padding, so that no engine meets a width of zero."""
    batch = pack_blocks([Sample(column([]), column([]), column([5]), column([6]))], 1)
    assert batch.seq_id.shape == batch.seq_tag.shape == (1, 1)
    assert batch.padding == 1


def test_split_keeps_further_dimensions() -> None:
    """Attention (K, B, T) comes back as (C, T) for each sample."""
    two = [Sample(column([1, 2]), column([]), column([3] * rows), column([4] * rows)) for rows in (3, 1)]
    batch = pack_blocks(two, 2)
    weights = np.arange(3 * 2 * 2, dtype=np.float32).reshape(3, 2, 2)
    first, second = batch.split(weights)
    assert first.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second.tolist() == [[8, 9]]


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((2, 2), id="block-missing"),
        pytest.param((4, 2), id="block-too-many"),
        pytest.param((3, 1), id="narrow"),
        pytest.param((2, 3), id="transposed"),
        pytest.param((6,), id="flat"),
    ],
)
def test_split_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    """An answer that has not one row for each row laid out is refused, saying both shapes."""
    batch = pack_blocks([Sample(column([1]), column([2]), column([3] * 6), column([4] * 6))], 2)
    with pytest.raises(ValueError, match=r"answered .* for a batch of \(3, 2\)"):
        batch.split(np.zeros(shape, np.float32))


@given(NUMBERS, st.integers(1, 15))
def test_parts_rejoin(sample: Sample, most_rows: int) -> None:
    """The parts of a sample are no longer than asked, keep the history and join to the whole."""
    parts = sample.parts(most_rows)
    assert all(0 < part.rows <= most_rows for part in parts)
    assert all(part.seq_id is sample.seq_id and part.seq_tag is sample.seq_tag for part in parts)
    assert np.concatenate([part.target_id for part in parts]).tolist() == sample.target_id.tolist()
    assert np.concatenate([part.target_tag for part in parts]).tolist() == sample.target_tag.tolist()


def test_small_sample_is_its_own_part() -> None:
    """A sample that fits is not copied."""
    sample = Sample(column([1]), column([2]), column([3]), column([4]))
    assert sample.parts(1)[0] is sample
