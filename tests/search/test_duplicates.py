"""Near-duplicates, against plain loops."""
import json
import os

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


def forest(pairs):
    """Of sorted pairs those that join what is apart, one after the other."""
    groups, kept = [], []
    for score, *ends in pairs:
        apart = [group for group in groups if group & set(ends)]
        if len(apart) == 1 and set(ends) <= apart[0]:
            continue
        for group in apart:
            groups.remove(group)
        groups.append(set(ends).union(*apart))
        kept.append((score, *ends))
    return kept


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
@pytest.mark.parametrize('held', [7, 4096])
@pytest.mark.parametrize('budget', [100, 2 ** 21])
def test_within_a_set(rows, threshold, held, budget, monkeypatch):
    monkeypatch.setattr(duplicates, '_HELD', held)
    tiles = duplicates.PreparedGallery.tiles
    monkeypatch.setattr(duplicates.PreparedGallery, 'tiles',
                        lambda self, queries: tiles(self, min(queries, budget), budget))
    found = find_duplicates(rows, threshold=threshold)
    wanted = forest(loop(rows, rows, threshold, True))
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
    kept = [(i, j) for _, (_, i), (_, j) in forest(
        [(score, ('g', i), ('o', j)) for score, i, j in wanted])]
    assert sorted(zip(found.rows.tolist(), found.others.tolist(), strict=True)) == sorted(kept)
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


def test_many_equal_rows_are_one_group_with_pairs_to_its_first(monkeypatch):
    monkeypatch.setattr(duplicates, '_HELD', 1000)
    rows = torch.cat([torch.eye(4)[:1].repeat(500, 1), torch.eye(4)[1:2].repeat(3, 1)])
    found = find_duplicates(rows)
    assert found.groups == [(list(range(500)), []), ([500, 501, 502], [])]
    assert len(found) == 501 and found.rows.tolist() == [0] * 499 + [500] * 2
    assert found.redundant() == [*range(1, 500), 501, 502]
    assert len(found.as_dict()['pairs']) == 501
    assert sorted(find_duplicates(rows[:400], rows[400:]).redundant()) == list(range(400))


def test_the_nearest_partner_of_each_row():
    angles = torch.deg2rad(torch.tensor([0., 10, 15, 90, 94]))
    vectors = torch.stack([angles.cos(), angles.sin()], 1)
    near, none = find_duplicates(vectors, threshold=0.9).nearest()
    wanted = {0: 10, 1: 5, 2: 5, 3: 4, 4: 4}
    assert none == {} and near == pytest.approx(
        {row: float(np.cos(np.deg2rad(angle))) for row, angle in wanted.items()}, abs=1e-6)
    mine, theirs = find_duplicates(vectors[:2], vectors[2:], threshold=0.9).nearest()
    assert sorted(mine) == [0, 1] and list(theirs) == [0]


@pytest.mark.parametrize('make', [os.symlink, os.link])
def test_a_link_is_no_duplicate_of_its_file(tmp_path, make):
    for name in ('b', 'c'):
        (tmp_path / name).write_text('the same picture')
    make(tmp_path / 'b', tmp_path / 'a')  # it comes first, and the file itself is to stay
    (tmp_path / 'more').symlink_to(tmp_path)
    names = [str(tmp_path / name) for name in ('a', 'b', 'c', 'more/c', 'more/a')]
    found = find_duplicates(Gallery(torch.ones(5, 2), ids=names))
    stays = 1 if make is os.symlink else 0  # of hard links, none is the link
    assert found.groups == [([stays, 2], [])] and found.links == sorted({0, 1, 3, 4} - {stays})
    assert found.redundant() == [2] and len(found) == 1
    boxes = Gallery(torch.ones(2, 2), ids=[f'{names[1]}#0,0,2,2', f'{names[1]}#2,2,4,4'])
    assert find_duplicates(boxes).groups == [([0, 1], [])]
    shared = find_duplicates(Gallery(torch.ones(1, 2), ids=names[:1]),
                             Gallery(torch.ones(1, 2), ids=names[1:2]))
    assert shared.groups == [([0], [0])], 'a file that stands in two splits is shared by them'


def test_bare_vectors_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '0').write_text('')
    (tmp_path / '1').symlink_to(tmp_path / '0')
    assert len(find_duplicates(torch.ones(2, 2))) == 1


def test_nothing_alike():
    found = find_duplicates(np.eye(5, dtype=np.float32))
    assert len(found) == 0 and found.groups == [] and found.redundant() == []
    assert found.as_dict() == dict(pairs=[], groups=[])


def test_other_similarities():
    vectors = torch.tensor([[0.], [0.4], [5]])
    found = find_duplicates(vectors, threshold=-0.5, similarity='euclidean')
    assert found.rows.tolist() == [0] and found.others.tolist() == [1]


def test_wrong_input(rows):
    with pytest.raises(ValueError, match='NaN'):
        find_duplicates(rows, threshold=float('nan'))
    with pytest.raises(FileNotFoundError):
        find_duplicates('nowhere.safetensors')
    galleries = [Gallery(rows, fingerprint=Fingerprint(weights=name)) for name in 'ab']
    with pytest.raises(ValueError, match='weights'):
        find_duplicates(*galleries)
