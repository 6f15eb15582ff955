"""Small sets of vectors that the tests of indexes share."""
import numpy as np
import torch

from retrieval.index import ExactIndex, FaissIndex

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


def filled(factory='IVF8,PQ4x4', rows=300, **options):
    if factory.startswith('IVF'):
        options.setdefault('search_parameters', dict(nprobe=8))
    index = FaissIndex(factory, **options)
    index.add(blobs(rows), ids(rows))
    return index


def same(one, other, k=20):
    a, b = one.search(blobs(9, 5), k), other.search(blobs(9, 5), k)
    return a.ids == b.ids and torch.equal(a.scores, b.scores)
