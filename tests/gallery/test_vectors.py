import math

import numpy as np
import pytest

from retrieval.gallery.vectors import ArrayVectors, JoinedVectors, encode


def plain_int8(row):
    """int8 with a scale, worked out value by value in Python."""
    scale = float(np.float32(max(abs(x) for x in row) / 127))
    if scale == 0:
        return row * 0
    return [round(x / scale) * scale for x in row]


def test_int8_agrees_with_a_plain_loop():
    rows = np.random.default_rng(0).normal(size=(30, 17)).astype(np.float32)
    rows[3], rows[4] = 0, rows[4] * 1e30
    vectors = ArrayVectors(*encode(rows, 'int8'))
    for row, found in zip(rows, vectors.decoded(), strict=True):
        expected = plain_int8(row.tolist()) if row.any() else [0] * 17
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=abs(row).max() * 1e-6)


def test_extremes_stay_finite():
    largest = np.finfo(np.float32).max
    rows = np.array([[largest, -largest], [1e-45, 0], [1e-38, -1e-38], [1e-36, 3e-36]], np.float32)
    found = ArrayVectors(*encode(rows, 'int8')).decoded()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], rows[0], rtol=1e-5)
    np.testing.assert_allclose(found[3], rows[3], rtol=1e-2)
    with pytest.raises(ValueError, match='Row 10'):
        encode(np.array([[65504], [65520]], np.float32), 'float16', first=9)
    assert encode(np.array([[65519]], np.float32), 'float16')[0].tolist() == [[65504]]


def test_encoding_what_was_decoded_changes_nothing():
    rows = np.random.default_rng(1).normal(size=(200, 9)).astype(np.float32)
    for dtype in ('float16', 'int8'):
        once = ArrayVectors(*encode(rows, dtype))
        again = ArrayVectors(*encode(once.decoded(), dtype))
        np.testing.assert_array_equal(once.data, again.data)
        np.testing.assert_allclose(once.decoded(), again.decoded(), rtol=1e-6)


@pytest.mark.parametrize('dtypes', [
    ('float32',) * 3, ('int8',) * 3, ('float16', 'int8', 'float32')])
def test_joined_vectors_are_those_of_their_parts(monkeypatch, dtypes):
    monkeypatch.setattr('retrieval.gallery.vectors.CHUNK_ROWS', 4)
    rng = np.random.default_rng(2)
    arrays = [rng.normal(size=(n, 5)).astype(np.float32) for n in (6, 1, 9)]
    parts = [ArrayVectors(*encode(array, dtype))
             for array, dtype in zip(arrays, dtypes, strict=True)]
    kept = [np.array([0, 2, 5]), None, np.array([8, 1, 4, 0])]
    joined = JoinedVectors(list(zip(parts, kept, strict=True)))
    expected = np.concatenate([part.decoded() if rows is None else part.decoded()[rows]
                               for part, rows in zip(parts, kept, strict=True)])
    assert joined.shape == (8, 5)
    np.testing.assert_array_equal(joined.decoded(), expected)
    np.testing.assert_array_equal(joined.decoded(2, 7), expected[2:7])
    order = [7, 0, 3, 4]
    np.testing.assert_array_equal(joined.take(np.array(order)).decoded(), expected[order])
    chunks = [ArrayVectors(*chunk).decoded() for chunk in joined.chunks(joined.dtype)]
    assert [len(chunk) for chunk in chunks] == [4, 4]
    np.testing.assert_array_equal(np.concatenate(chunks), expected)


def test_normalised_means_length_one():
    rows = np.random.default_rng(3).normal(size=(50, 64)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for dtype in ('float32', 'float16', 'int8'):
        assert ArrayVectors(*encode(unit, dtype)).normalised
        assert not ArrayVectors(*encode(rows, dtype)).normalised
        for row in (0, 49):
            one_off = unit.copy()
            one_off[row] *= 1.1
            vectors = ArrayVectors(*encode(one_off, dtype))
            assert not vectors.normalised
        assert vectors.take(np.array([1, 2])).normalised
    assert math.isclose(float(np.linalg.norm(unit[0])), 1, rel_tol=1e-5)
