"""Digests of blocks, and which blocks are checked when."""
import hashlib

import numpy as np
import pytest

from retrieval.mapped_file import BlockArray, BlockDigester, DamagedError


def plain_digests(data, size):
    return b''.join(hashlib.sha256(data[start:start + size]).digest()[:16]
                    for start in range(0, len(data), size))


@pytest.mark.parametrize('length', [0, 1, 63, 64, 65, 1000])
def test_digests_do_not_depend_on_the_pieces(length):
    rng = np.random.default_rng(length)
    data = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    digester, start = BlockDigester(64), 0
    while start < length:
        stop = start + int(rng.integers(1, 150))
        digester.update(memoryview(data[start:stop]))
        start = stop
    assert digester.finish() == plain_digests(data, 64)


def opened(array, front=12, block=64, **kwargs):
    """The array in a "file" behind some other bytes."""
    data = array.tobytes()
    file = np.frombuffer(bytearray(b'x' * front + data), dtype=np.uint8)
    digests = np.frombuffer(plain_digests(data, block), dtype=np.uint8).reshape(-1, 16)
    return file, BlockArray(file, 'f', 't', array.dtype, array.shape, front, digests, block,
                            **kwargs)


@pytest.mark.parametrize('dtype, shape', [('int8', (50, 7)), ('float32', (33, 5)),
                                          ('int64', (40,)), ('float32', (9, 100)),
                                          ('float32', (0, 5))])
def test_slices_and_rows_are_those_of_the_array(dtype, shape):
    rng = np.random.default_rng(0)
    array = rng.integers(-100, 100, shape).astype(dtype)
    for _ in range(30):
        _, blocks = opened(array, front=8)
        assert len(blocks) == len(array) and blocks.shape == shape
        start, stop = sorted(rng.integers(0, shape[0] + 1, 2).tolist())
        np.testing.assert_array_equal(blocks[start:stop], array[start:stop])
        rows = rng.integers(0, shape[0], 4) if shape[0] else np.zeros(0, dtype=int)
        np.testing.assert_array_equal(blocks.take(rows), array[rows])
        np.testing.assert_array_equal(blocks[:], array)


def test_exactly_the_touched_blocks_are_checked():
    """Each block in turn is damaged; a row fails just when it reaches into that block."""
    array = np.arange(60 * 5, dtype=np.float32).reshape(60, 5)  # rows of 20 bytes, blocks of 64
    for bad in range(-(-array.nbytes // 64)):
        for row in range(60):
            file, blocks = opened(array)
            file[12 + 64 * bad] ^= 1
            touches = row * 20 < 64 * (bad + 1) and (row + 1) * 20 > 64 * bad
            for read in (lambda blocks=blocks, row=row: blocks[row:row + 1],
                         lambda blocks=blocks, row=row: blocks.take(np.array([row]))):
                if touches:
                    with pytest.raises(DamagedError, match=f'bytes {12 + 64 * bad} to '):
                        read()
                else:
                    np.testing.assert_array_equal(read(), array[row:row + 1])


def test_rows_longer_than_several_blocks():
    array = np.arange(4 * 100, dtype=np.float32).reshape(4, 100)
    file, blocks = opened(array)
    file[12 + 400 + 200] ^= 1  # in the middle of row 1
    np.testing.assert_array_equal(blocks.take(np.array([3, 0])), array[[3, 0]])
    with pytest.raises(DamagedError):
        blocks.take(np.array([1]))


def test_a_checked_block_is_not_checked_again_but_by_verify():
    array = np.arange(64, dtype=np.int64)
    file, blocks = opened(array, front=8)
    np.testing.assert_array_equal(blocks[:], array)
    file[8] ^= 1
    assert blocks[:1][0] == 1
    with pytest.raises(DamagedError):
        blocks.verify()


def test_values_that_are_not_finite():
    array = np.zeros((10, 8), dtype=np.float32)
    array[6, 3] = np.inf
    _, blocks = opened(array, finite=True)
    assert blocks[:4].shape == (4, 8)
    with pytest.raises(DamagedError, match='NaN or infinity.*row 6'):
        blocks.take(np.array([6]))
