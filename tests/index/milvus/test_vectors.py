"""Vectors as Milvus's fields take them."""
import numpy as np
import pytest
import torch

from retrieval.index.milvus.vectors import packed, rounded, unpacked

ROWS = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_sixteen_bits(dtype):
    halves = torch.from_numpy(ROWS).to(getattr(torch, dtype))
    sent = packed(ROWS, dtype)
    assert [len(row) for row in sent] == [16] * 5
    assert sent[2] == halves[2].view(torch.uint8).numpy().tobytes()
    for values in (sent, [[row] for row in sent]):  # a query gives either
        np.testing.assert_array_equal(unpacked(values, dtype), halves.float())
    np.testing.assert_array_equal(rounded(ROWS, dtype), halves.float())


def test_what_float16_cannot_hold():
    with pytest.raises(ValueError, match='hold 70000, which float16 cannot'):
        rounded(np.float32([[70_000, 1]]), 'float16')
    assert rounded(np.float32([[70_000, 1]]), 'bfloat16')[0, 0] == 70_144


def test_float32_is_left_as_it_is():
    assert packed(ROWS, 'float32') is rounded(ROWS, 'float32') is ROWS
    np.testing.assert_array_equal(unpacked(ROWS.tolist(), 'float32'), ROWS)
