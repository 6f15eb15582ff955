"""The comparison of two galleries, against lists that are sorted in Python."""
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from retrieval.evaluation import compare_galleries
from retrieval.gallery import Fingerprint, Gallery


def galleries(count=40, noise=0.7):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, 6)).astype(np.float32)
    ids = [f'p{row}' for row in range(count)]
    labels = rng.integers(0, 5, count)
    other = np.concatenate([rows + noise * rng.normal(size=rows.shape), rng.normal(
        size=(count, 2))], axis=1).astype(np.float32)
    order = rng.permutation(count)
    # the new gallery has another width and order, lacks three pictures and has two more
    kept = order[order >= 3]
    extra = rng.normal(size=(2, 8)).astype(np.float32)
    names = [*(ids[row] for row in kept), 'n0', 'n1']
    new = Gallery(np.concatenate([other[kept], extra]), ids=names,
                  labels=np.concatenate([labels[kept], [0, 1]]), fingerprint=Fingerprint('new'))
    return Gallery(rows, ids, labels, fingerprint=Fingerprint('old')), new


def plain_lists(gallery, names, k):
    """The first k ids for each query, sorted in Python."""
    unit = torch.nn.functional.normalize(gallery.embeddings.double(), dim=1).numpy()
    lists = []
    for name in names:
        scores = unit @ unit[gallery.rows[name]]
        order = sorted(range(len(gallery)), key=lambda row: -scores[row])
        lists.append([gallery.ids[row] for row in order if gallery.ids[row] != name][:k])
    return lists


def recall(gallery, names, k):
    hits, counted = 0, 0
    for name, found in zip(names, plain_lists(gallery, names, k), strict=True):
        label = int(gallery.labels[gallery.rows[name]])
        counted += int((gallery.labels == label).sum()) > 1
        hits += any(int(gallery.labels[gallery.rows[other]]) == label for other in found)
    return 100 * hits / counted


def test_results_agree_with_a_plain_loop():
    old, new = galleries()
    names = [name for name in old.ids if name in new.rows]
    found = compare_galleries(old, new, k=7, metrics=['Recall@1', 'Recall@5'])
    before, after = plain_lists(old, names, 7), plain_lists(new, names, 7)
    pairs = list(zip(before, after, strict=True))
    assert found.num_queries == 37 and found.rows == (40, 39)
    assert (found.only_old, found.only_new) == (3, 2)
    assert found.overlap == pytest.approx(np.mean([len(set(a) & set(b)) / 7 for a, b in pairs]))
    assert found.changed_first == pytest.approx(np.mean([a[0] != b[0] for a, b in pairs]))
    correlations = []
    for a, b in pairs:
        common = [name for name in a if name in b]
        if len(common) > 1:
            correlations.append(spearmanr([a.index(name) for name in common],
                                          [b.index(name) for name in common]).statistic)
    assert found.num_correlated == len(correlations) > 10
    assert found.rank_correlation == pytest.approx(np.mean(correlations))
    for metric, k in (('Recall@1', 1), ('Recall@5', 5)):
        expected = recall(old, names, k), recall(new, names, k)
        assert found.results[metric] == pytest.approx(expected)
    assert found.differences == ["the encoder's weights"]
    worst = found.most_changed[0]
    place = names.index(worst[0])
    assert worst[1] == min(len(set(a) & set(b)) / 7 for a, b in pairs)
    assert worst[2:] == (before[place][0], after[place][0])
    assert 'Recall@5' in found.report() and 'first 7 results' in found.report()


def test_a_gallery_does_not_differ_from_itself():
    old, _ = galleries()
    found = compare_galleries(old, old, queries=20)
    assert (found.num_queries, found.overlap, found.rank_correlation) == (20, 1, 1)
    assert found.changed_first == 0 and found.most_changed == [] and found.differences == []
    assert found.as_dict()['overlap'] == 1 and found.as_dict()['rows'] == (len(old), len(old))
    assert all(before == after for before, after in found.results.values())


def test_queries_by_id_and_of_their_own():
    old, new = galleries()
    names = ['p9', 'p4', 'p30']
    by_id = compare_galleries(old, new, queries=names)
    sides = old.subset(old.find(names)), new.subset(new.find(names))
    own = compare_galleries(old, new, queries=sides)
    assert own == by_id and by_id.num_queries == 3
    unlabelled = Gallery(old.embeddings, old.ids)
    assert compare_galleries(unlabelled, new).results == {}


def test_queries_are_drawn_by_seed():
    old, new = galleries()
    assert compare_galleries(old, new, 5) == compare_galleries(old, new, 5)
    assert compare_galleries(old, new, 5) != compare_galleries(old, new, 5, seed=1)


def test_a_gallery_is_searched_with_its_similarity():
    old, new = galleries()
    old.similarity = new.similarity = 'euclidean'
    found = compare_galleries(old, new)
    assert found == compare_galleries(old, new, similarity='euclidean')
    assert found != compare_galleries(old, new, similarity='cosine_similarity')


@pytest.mark.parametrize('kwargs, words', [
    (dict(k=0), 'at least 1'), (dict(queries=['p0']), "'p0'"), (dict(queries=0), 'no query'),
    (dict(queries=['x']), "'x'")])
def test_wrong_arguments(kwargs, words):
    old, new = galleries()
    with pytest.raises(ValueError, match=words):
        compare_galleries(old, new, **kwargs)


def test_galleries_without_ids_in_common():
    old, new = galleries()
    with pytest.raises(ValueError, match='ids'):
        compare_galleries(Gallery(torch.ones(2, 2)), new)
    other = Gallery(old.embeddings, ids=[f'x{name}' for name in old.ids])
    with pytest.raises(ValueError, match='0 ids stand in both'):
        compare_galleries(old, other)
    with pytest.raises(ValueError, match='same ids'):
        compare_galleries(old, new, queries=(old.subset([0]), new.subset([0])))


def test_classes_that_are_numbered_apart_are_compared_by_name():
    old, new = galleries()
    names = [f'class {label}' for label in range(5)]
    old, new = (Gallery(side.embeddings, side.ids, side.labels, names) for side in (old, new))
    queries = [side.subset(side.find(['p9', 'p4', 'p30'])) for side in (old, new)]
    renumbered = [Gallery(side.embeddings, side.ids, 4 - side.labels, names[::-1])
                  for side in queries]
    assert compare_galleries(old, new, tuple(renumbered)).results == compare_galleries(
        old, new, tuple(queries)).results
