"""Small sets of vectors that the tests of indexes share."""
import numpy as np

from retrieval.index import ExactIndex

WIDTH = 16


def blobs(count, seed=0, width=WIDTH):
    """Vectors in ten groups, as embeddings are."""
    numbers = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(10, width))
    return (centres[numbers.integers(0, 10, count)]
            + 0.6 * numbers.normal(size=(count, width))).astype(np.float32)


def ids(count, start=0):
    return [f'#{row}' for row in range(start, start + count)]


def recall(found, wanted):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, wanted, strict=True)])


def exact_ids(rows, queries, k, similarity='cosine_similarity'):
    index = ExactIndex(similarity)
    index.add(np.stack(list(rows.values())), list(rows))
    return index.search(queries, k).ids
