"""Near-duplicates, against plain loops."""
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from retrieval.gallery import Fingerprint, Gallery
from retrieval.search import duplicates, find_duplicates


@pytest.fixture
def rows():
    """Forty directions, some of them again with a little noise."""
    base = torch.randn(40, 8)
    return torch.cat([base, base[:6] + 0.05 * torch.randn(6, 8), base[:3] + 0.05])


def loop(first, second, threshold, same):
    found = []
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            score = float(functional.cosine_similarity(a, b, 0))
            if score >= threshold and (not same or i < j):
                found.append((score, i, j))
    return sorted(found, key=lambda pair: (-pair[0], pair[1:]))


def components(edges):
    """Groups of nodes, by merging sets."""
    groups = []
    for a, b in edges:
        joined = {a, b}
        for group in [group for group in groups if group & joined]:
            groups.remove(group)
            joined |= group
        groups.append(joined)
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize('threshold', [0.5, 0.9, 0.99])
@pytest.mark.parametrize('block', [7, 4096])
def test_within_a_set(rows, threshold, block, monkeypatch):
    monkeypatch.setattr(duplicates, '_BLOCK', block)
    found = find_duplicates(rows, threshold=threshold)
    wanted = loop(rows, rows, threshold, True)
    assert sorted(zip(found.rows.tolist(), found.others.tolist(), strict=True)) == sorted(
        pair[1:] for pair in wanted)
    assert found.scores.tolist() == pytest.approx([pair[0] for pair in wanted], abs=1e-5)
    assert {frozenset(group) for group, _ in found.groups} == components(
        [pair[1:] for pair in wanted])
    assert [len(group) for group, _ in found.groups] == sorted(
        (len(group) for group, _ in found.groups), reverse=True)
    kept = sorted(set(range(len(rows))) - set(found.redundant()))
    if threshold == 0.99:
        assert not len(find_duplicates(rows[kept], threshold=threshold))


def test_between_sets(rows):
    other = torch.cat([torch.randn(10, 8), rows[[5, 7, 7]] * 3])
    found = find_duplicates(rows, other, 0.98)
    wanted = loop(rows, other, 0.98, False)
    assert sorted(zip(found.rows.tolist(), found.others.tolist(), strict=True)) == sorted(
        pair[1:] for pair in wanted)
    edges = [(('g', i), ('o', j)) for _, i, j in wanted]
    assert {frozenset([*(('g', row) for row in mine), *(('o', row) for row in theirs)])
            for mine, theirs in found.groups} == components(edges)
    assert found.redundant() == sorted({pair[1] for pair in wanted})


def test_names_for_json(tmp_path):
    vectors = torch.tensor([[1., 0], [0, 1], [1, 0.001], [0, 1]])
    gallery = Gallery(vectors, ids=['a', 'b', 'c', 'd'])
    gallery.save(tmp_path / 'gallery.safetensors')
    named = find_duplicates(tmp_path / 'gallery.safetensors').as_dict()
    assert named == dict(pairs=[dict(id='b', other='d', score=1.0),
                                dict(id='a', other='c', score=1.0)],
                         groups=[['a', 'c'], ['b', 'd']])
    json.dumps(named)
    other = Gallery(vectors[:1] * 2, ids=['x'])
    assert find_duplicates(gallery, other).as_dict()['groups'] == [
        dict(gallery=['a', 'c'], other=['x'])]


def test_nothing_alike():
    found = find_duplicates(np.eye(5, dtype=np.float32))
    assert len(found) == 0 and found.groups == [] and found.redundant() == []
    assert found.as_dict() == dict(pairs=[], groups=[])


def test_other_similarities():
    vectors = torch.tensor([[0.], [0.4], [5]])
    found = find_duplicates(vectors, threshold=-0.5, similarity='euclidean')
    assert found.rows.tolist() == [0] and found.others.tolist() == [1]


def test_wrong_input(rows):
    with pytest.raises(ValueError, match='max_pairs'):
        find_duplicates(rows, threshold=-1, max_pairs=100)
    with pytest.raises(FileNotFoundError):
        find_duplicates('nowhere.safetensors')
    galleries = [Gallery(rows, fingerprint=Fingerprint(weights=name)) for name in 'ab']
    with pytest.raises(ValueError, match='weights'):
        find_duplicates(*galleries)
