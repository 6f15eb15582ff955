"""`evaluate` against full sorts in float64, and the ways to split one evaluation."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import (
    evaluate,
    evaluate_levels,
    evaluate_splits,
    evaluate_within_parents,
)

NAMES = ('Recall@1', 'Recall@5', 'Precision@3', 'R-Precision', 'MAP@R', 'mAP', 'mAP@4', 'MRR',
         'CMC@2', 'mINP', 'mAP-trapezoid')


def walk(hits):
    """All figures of one ranked list of booleans, by their definitions."""
    total, at = sum(hits), [place for place, hit in enumerate(hits, 1) if hit]
    precision = [sum(hits[:place]) / place for place in range(1, len(hits) + 1)]
    steps = [p * hit for p, hit in zip(precision, hits, strict=False)]
    area = sum(((n - 1) / (place - 1) if place > 1 else 1.0) + n / place
               for n, place in enumerate(at, 1)) / 2
    return {'Recall@1': any(hits[:1]), 'Recall@5': any(hits[:5]), 'CMC@2': any(hits[:2]),
            'Precision@3': sum(hits[:3]) / 3, 'R-Precision': sum(hits[:total]) / total,
            'MAP@R': sum(steps[:total]) / total, 'mAP': sum(steps) / total,
            'mAP@4': sum(steps[:4]) / min(total, 4), 'MRR': 1 / at[0], 'mINP': total / at[-1],
            'mAP-trapezoid': area / total}


def plain(scores, relevant, left_out, groups=None):
    """Means in percent by a full sort of every row in float64."""
    figures, kept = [], []
    for query, row in enumerate(scores):
        order = [i for i in sorted(range(len(row)), key=lambda i: (-row[i], i))
                 if not left_out[query][i]]
        hits = [bool(relevant[query][i]) for i in order]
        if any(hits):
            figures.append(walk(hits))
            kept.append(query)
    means = {}
    for name in NAMES:
        values = np.array([figure[name] for figure in figures], dtype=np.float64)
        if groups is not None:
            of = np.array([groups[query] for query in kept])
            values = np.array([values[of == group].mean() for group in np.unique(of)])
        means[name] = values.mean() * 100
    return {**means, 'num_queries': len(scores), 'num_skipped_queries': len(scores) - len(kept)}


def whole_numbers(seed, count, width=3):
    return np.random.default_rng(seed).integers(-2, 3, (count, width)).astype(np.float32)


def same(got, expected):
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize('average', ['micro', 'macro'])
@pytest.mark.parametrize('seed', range(4))
def test_query_and_gallery(seed, average):
    queries, gallery = whole_numbers(seed, 25), whole_numbers(seed + 100, 60)
    numbers = np.random.default_rng(seed)
    labels, theirs = numbers.integers(0, 9, 25), numbers.integers(2, 9, 60)
    scores = queries.astype(np.float64) @ gallery.T
    relevant = labels[:, None] == theirs
    expected = plain(scores, relevant, np.zeros_like(relevant),
                     labels if average == 'macro' else None)
    for budget in (2 ** 22, 100):
        same(evaluate(queries, labels, gallery, theirs, NAMES, 'inner_product', average,
                      tile_budget=budget), expected)
    for name in NAMES:  # each alone takes its own way through the engine
        alone = evaluate(queries, labels, gallery, theirs, [name], 'inner_product', average)
        assert alone[name] == pytest.approx(expected[name], abs=1e-9)


@pytest.mark.parametrize('seed', range(4))
def test_leave_one_out(seed):
    vectors = whole_numbers(seed, 50)
    labels = np.random.default_rng(seed).integers(0, 20, 50)
    expected = plain(vectors.astype(np.float64) @ vectors.T, labels[:, None] == labels,
                     np.eye(50, dtype=bool))
    assert expected['num_skipped_queries'] > 0, 'the case wants classes of one'
    same(evaluate(vectors, labels, metrics=NAMES, similarity='inner_product'), expected)
    same(evaluate(torch.from_numpy(vectors), torch.from_numpy(labels), metrics=NAMES,
                  similarity='inner_product', ids=range(50)), expected)
    for name in NAMES:  # shallow ones compute each pair once
        for budget in (2 ** 22, 64 * 64):
            alone = evaluate(vectors, labels, metrics=[name], similarity='inner_product',
                             tile_budget=budget)
            assert alone[name] == pytest.approx(expected[name], abs=1e-9)
            assert alone['num_skipped_queries'] == expected['num_skipped_queries']


def test_equal_ids_are_the_same_picture():
    vectors, labels = whole_numbers(5, 30), np.arange(30) % 4
    ids = [f'p{row // 2}' for row in range(30)]
    same_picture = np.array(ids)[:, None] == np.array(ids)
    expected = plain(vectors.astype(np.float64) @ vectors.T, labels[:, None] == labels,
                     same_picture)
    same(evaluate(vectors, labels, metrics=NAMES, similarity='inner_product', ids=ids), expected)
    same(evaluate(vectors, labels, vectors, labels, NAMES, 'inner_product', ids=ids,
                  gallery_ids=ids), expected)


def test_a_bare_gallery_leaves_nothing_out():
    vectors, labels = torch.randn(20, 4), torch.arange(20)
    found = evaluate(vectors, labels, vectors, labels, ['Recall@1', 'mAP'])
    assert found['Recall@1'] == 100 and found['mAP'] == 100
    with pytest.raises(ValueError, match='None of 20 queries'):
        evaluate(vectors, labels)


def test_junk_and_cameras():
    queries, gallery = whole_numbers(7, 20), whole_numbers(8, 70)
    numbers = np.random.default_rng(7)
    labels, theirs = numbers.integers(0, 6, 20), numbers.integers(0, 6, 70)
    cameras, their_cameras = numbers.integers(0, 3, 20), numbers.integers(0, 3, 70)
    junk = numbers.random((20, 70)) < 0.2
    relevant = labels[:, None] == theirs
    gone = junk | (relevant & (cameras[:, None] == their_cameras))
    expected = plain(queries.astype(np.float64) @ gallery.T, relevant, gone)
    for form in (junk, [np.nonzero(row)[0] for row in junk],
                 lambda rows: torch.from_numpy(junk)[rows]):
        same(evaluate(queries, labels, gallery, theirs, NAMES, 'inner_product', junk=form,
                      cameras=cameras, gallery_cameras=their_cameras), expected)


@pytest.mark.parametrize('form', ['matrix', 'callable', 'lists'])
def test_custom_relevance(form):
    queries, gallery = whole_numbers(1, 15), whole_numbers(2, 40)
    relevant = np.random.default_rng(1).random((15, 40)) < 0.1
    expected = plain(queries.astype(np.float64) @ gallery.T, relevant, np.zeros_like(relevant))
    given = {'matrix': relevant, 'callable': lambda rows: torch.from_numpy(relevant)[rows],
             'lists': [np.nonzero(row)[0].tolist() for row in relevant]}[form]
    same(evaluate(queries, None, gallery, metrics=NAMES, similarity='inner_product',
                  relevance=given), expected)


def test_relevant_items_that_are_all_junk_skip_the_query():
    vectors = torch.eye(3)
    found = evaluate(vectors, [0, 1, 2], vectors, [0, 1, 2], ['mAP', 'Recall@1'],
                     junk=[[0], [], []])
    assert found['num_skipped_queries'] == 1 and found['mAP'] == 100


def test_labels_above_two_to_the_24th():
    base = 2 ** 24
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    labels = torch.tensor([base + 1, base, base + 1])  # equal to each other in float32
    assert evaluate(vectors, labels, metrics='Recall@1')['Recall@1'] == 0
    big = torch.tensor([2 ** 62 + 1, 2 ** 62, 2 ** 62 + 1])
    assert evaluate(vectors, big, metrics='mAP')['mAP'] == 50


def test_string_labels():
    vectors, labels = torch.randn(30, 4), np.arange(30) % 4
    words = [f'class {label}' for label in labels]
    assert evaluate(vectors, words, metrics=NAMES) == evaluate(vectors, labels, metrics=NAMES)
    with pytest.raises(TypeError, match='strings'):
        evaluate(vectors, words, vectors, labels)


def test_k_above_the_gallery():
    found = evaluate(torch.eye(3), [0, 0, 1], metrics=['Precision@100', 'Recall@100', 'mAP@100'])
    assert found['Precision@100'] == pytest.approx(1.0)
    assert found['Recall@100'] == 100 and found['num_skipped_queries'] == 1


def test_against_the_peer():
    calculator = pytest.importorskip('pytorch_metric_learning.utils.accuracy_calculator')
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 40, 600)
    vectors = generator.normal(size=(40, 16))[labels] + generator.normal(size=(600, 16)) * 1.5
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    names = {'Precision@1': 'precision_at_1', 'R-Precision': 'r_precision',
             'MAP@R': 'mean_average_precision_at_r'}
    for average, macro in (('micro', False), ('macro', True)):
        peer = calculator.AccuracyCalculator(include=tuple(names.values()), k='max_bin_count',
                                             avg_of_avgs=macro)
        expected = peer.get_accuracy(torch.from_numpy(vectors), torch.from_numpy(labels))
        got = evaluate(vectors, labels, metrics=names, average=average)
        for ours, theirs in names.items():
            assert got[ours] == pytest.approx(expected[theirs] * 100, abs=1e-6)


EYE, ABC = np.eye(3, dtype=np.float32), [0, 0, 1]


@pytest.mark.parametrize(('arguments', 'options', 'error', 'says'), [
    ((EYE, ABC), {'metrics': ['Recal@1']}, ValueError, 'Did you mean'),
    ((EYE, ABC), {'metrics': ['Recall@0']}, ValueError, 'at least 1'),
    ((EYE, ABC), {'average': 'mean'}, ValueError, 'macro, micro'),
    ((EYE, ABC), {'similarity': 'dot'}, ValueError, 'inner_product'),
    ((EYE, None), {}, ValueError, 'Give labels'),
    ((EYE, None), {'relevance': [[1], [0], []], 'average': 'macro'}, ValueError, 'needs labels'),
    ((EYE, [0, 1]), {}, ValueError, '2 entries for 3 embeddings'),
    ((EYE, [0.5, 1, 1]), {}, ValueError, 'integers'),
    ((EYE, [0, 1, 2]), {}, ValueError, 'None of 3 queries'),
    ((EYE, ABC, EYE, [7, 8, 9]), {}, ValueError, 'no label in common'),
    ((EYE, ABC, EYE), {}, ValueError, 'gallery_labels'),
    ((EYE, ABC, EYE, [1]), {}, ValueError, '1 entries for 3 rows'),
    ((EYE, ABC, None, ABC), {}, ValueError, 'without a gallery'),
    ((EYE, ABC), {'gallery_ids': ABC, 'gallery_cameras': ABC}, ValueError,
     'gallery_ids, gallery_cameras cannot be given without a gallery'),
    ((EYE, ABC, EYE[:, :2], ABC), {}, ValueError, '2 columns, but 3'),
    ((EYE, ABC, EYE[:0], []), {}, ValueError, 'gallery is empty'),
    ((EYE[:0], []), {}, ValueError, 'no queries'),
    ((EYE * np.nan, ABC), {}, ValueError, 'row 0 holds NaN'),
    ((EYE, ABC), {'ids': ['a']}, ValueError, 'ids has 1 entries'),
    ((EYE, None), {'relevance': np.ones((2, 3), dtype=bool)}, ValueError, '2 queries'),
    ((EYE, None), {'relevance': 'all'}, TypeError, 'relevance must be'),
    ((EYE, ABC), {'junk': [[9], [], []]}, ValueError, 'row 9'),
    ((EYE, ABC, EYE, ABC), {'cameras': ABC}, ValueError, 'both sides'),
])
def test_bad_input(arguments, options, error, says):
    with pytest.raises(error, match=says):
        evaluate(*arguments, **options)


@pytest.mark.parametrize('alone', [True, False])
def test_half_precision_gives_the_same(alone):
    vectors, labels = torch.randn(120, 9), torch.arange(120) % 11
    side = {} if alone else {'gallery': torch.randn(200, 9), 'gallery_labels': torch.arange(200)
                             % 13, 'junk': torch.rand(120, 200) > 0.9}
    for metrics in (('Recall@1', 'Precision@5', 'MAP@R', 'mAP@20'), ('mAP', 'MRR')):
        found = evaluate(vectors, labels, metrics=metrics, precision='half', **side)
        assert found == pytest.approx(evaluate(vectors, labels, metrics=metrics, **side))


def test_negative_similarities_are_ranked_like_others():
    gallery, labels = -torch.rand(60, 3) - 0.1, torch.arange(60) % 7
    queries, own = torch.rand(20, 3) + 0.1, torch.arange(20) % 7
    found = evaluate(queries, own, gallery, labels, ('Recall@1', 'MAP@R', 'mAP', 'MRR'),
                     'inner_product')
    shifted = torch.cat([gallery, torch.full((60, 1), 50.0)], dim=1)  # the same order, all above 0
    assert found == evaluate(torch.cat([queries, torch.ones(20, 1)], dim=1).double(), own,
                             shifted.double(), labels, ('Recall@1', 'MAP@R', 'mAP', 'MRR'),
                             'inner_product')


def test_a_class_of_one_is_left_out_and_counted():
    vectors = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]])
    found = evaluate(vectors, [5, 5, 8], metrics=('Recall@1', 'mAP'))
    assert found == {'Recall@1': 100, 'mAP': 100, 'num_queries': 3, 'num_skipped_queries': 1}


def test_separate_splits():
    splits = {name: (torch.randn(20, 4), torch.arange(20) % 4) for name in ('train', 'val')}
    assert evaluate_splits(splits, metrics='mAP') == {
        name: evaluate(*split, metrics='mAP') for name, split in splits.items()}


def test_joint_splits():
    vectors, labels = torch.randn(50, 4), torch.arange(50) % 6
    splits = {'train': (vectors[:30], labels[:30]), 'val': (vectors[30:], labels[30:])}
    found = evaluate_splits(splits, [('val', ['train', 'val']), ('train', ['val'])])
    scores = torch.nn.functional.cosine_similarity(vectors[30:, None], vectors, dim=2)
    scores[torch.arange(20), torch.arange(30, 50)] = -9
    nearest = labels[scores.argmax(1)] == labels[30:]
    assert found['val']['Recall@1'] == pytest.approx(100 * nearest.double().mean().item())
    assert found['train'] == evaluate(*splits['train'], *splits['val'])
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        evaluate_splits(splits, [('val', ['test'])])


def test_within_parents():
    vectors, labels = torch.randn(40, 4), torch.arange(40) % 8
    parents = labels // 2
    found = evaluate_within_parents(vectors, labels, parents)
    each = [evaluate(vectors[parents == one], labels[parents == one]) for one in range(4)]
    for name in ('Recall@1', 'MAP@R', 'mAP'):
        assert found[name] == pytest.approx(sum(result[name] for result in each) / 4)
    assert found['num_queries'] == 40 and found['num_skipped_queries'] == 0
    lonely = parents.clone()
    lonely[0] = 99
    assert evaluate_within_parents(vectors, labels, lonely)['num_skipped_queries'] == 1
    with pytest.raises(ValueError, match='Within no parent'):
        evaluate_within_parents(vectors, torch.arange(40), parents)
    with pytest.raises(ValueError, match='parents has 2'):
        evaluate_within_parents(vectors, labels, [0, 1])


def test_levels_of_a_hierarchy():
    vectors, labels = torch.randn(40, 4), torch.arange(40) % 8
    table = torch.stack([labels, labels // 4], dim=1)
    assert evaluate_levels(vectors, table, ['class', 'family']) == {
        'class': evaluate(vectors, labels), 'family': evaluate(vectors, labels // 4)}
    assert list(evaluate_levels(vectors, table)) == ['level0', 'level1']
    with pytest.raises(ValueError, match='1 names for 2'):
        evaluate_levels(vectors, table, ['class'])
    with pytest.raises(ValueError, match=r'\(N, L\)'):
        evaluate_levels(vectors, labels)


def test_two_streams():
    vectors, others, labels = torch.randn(20, 4), torch.randn(20, 4), torch.arange(20) % 5
    found = evaluate(vectors, labels, others, labels, 'Recall@1', ids=range(20),
                     gallery_ids=range(20))
    scores = torch.nn.functional.cosine_similarity(vectors[:, None], others, dim=2)
    nearest = labels[scores.fill_diagonal_(-9).argmax(1)] == labels
    assert found['Recall@1'] == pytest.approx(100 * nearest.double().mean().item())
