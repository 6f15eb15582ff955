from __future__ import annotations

import pytest
import torch

from retrieval.evaluation import (
    evaluate,
    evaluate_levels,
    evaluate_splits,
    evaluate_within_parents,
)


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
