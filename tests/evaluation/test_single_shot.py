"""CMC of a single shot against every way to draw one picture of each identity."""
from __future__ import annotations

from itertools import product

import pytest
import torch

from retrieval.evaluation import EmbeddingSet, EvaluationTask, evaluate_protocol, single_shot_cmc


def over_all_draws(query, label, camera, gallery, labels, cameras, k):
    """The share of draws, and of the query's own pictures, for which it is among the first k."""
    ranked = [row for row in range(len(labels))
              if camera is None or (labels[row], cameras[row]) != (label, camera)]
    identities = sorted({labels[row] for row in ranked})
    if label not in identities:
        return None
    choices = [[row for row in ranked if labels[row] == one] for one in identities]
    hits = []
    for drawn in product(*choices):
        order = sorted(drawn, key=lambda row: (-float(query @ gallery[row]), row))
        hits.append(label in [labels[row] for row in order[:k]])
    return sum(hits) / len(hits)


@pytest.fixture(scope='module')
def small():
    generator = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize
    return (unit(torch.randn(6, 5, generator=generator), dim=1), [0, 1, 2, 3, 0, 9],
            [0, 1, 0, 1, 1, 0], unit(torch.randn(14, 5, generator=generator), dim=1),
            [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 0], [0, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1])


@pytest.mark.parametrize('k', [1, 2, 4, 9])
def test_the_mean_over_all_draws(small, k):
    queries, labels, _, gallery, theirs, _ = small
    task = EvaluationTask(EmbeddingSet(queries, labels), EmbeddingSet(gallery, theirs))
    expected = [over_all_draws(queries[row], label, None, gallery, theirs, None, k) or 0.
                for row, label in enumerate(labels)]
    torch.testing.assert_close(single_shot_cmc(task, k), torch.tensor(expected).double())


def test_the_protocol_leaves_out_the_querys_camera(small):
    queries, labels, cameras, gallery, theirs, their_cameras = small
    found = evaluate_protocol(
        'CUHK03', EmbeddingSet(queries, labels, metadata={'camera': cameras}),
        EmbeddingSet(gallery, theirs, metadata={'camera': their_cameras}))
    for k in (1, 5):
        each = [over_all_draws(queries[row], label, cameras[row], gallery, theirs, their_cameras, k)
                for row, label in enumerate(labels)]
        known = [one for one in each if one is not None]
        assert found[f'CMC-single-shot@{k}'] == pytest.approx(100 * sum(known) / len(known))
    assert found['num_skipped_queries'] == len(each) - len(known) == 1


def test_it_needs_labels():
    task = EvaluationTask(EmbeddingSet(torch.eye(2)), relevance=[[1], [0]])
    with pytest.raises(ValueError, match='give labels of both'):
        single_shot_cmc(task, 1)
