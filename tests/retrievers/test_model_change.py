"""A model change: maps against the true one, one ranking of both kinds of rows, and its encoder."""
import numpy as np
import pytest
import torch
from torch import nn

from retrieval.gallery import Gallery
from retrieval.retrievers.model_change import (
    ModelChange,
    in_order_of,
    learn_map,
)


def drawn(count, classes, width, noise, seed):
    """Unit vectors around class centres, which are the same for every seed and width."""
    centres = torch.randn(classes, 32, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    rows = centres[labels] + noise * torch.randn(count, 32, generator=generator)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(width)))[0]
    return nn.functional.normalize(rows @ turn[:, :width], dim=1), labels


def test_a_turn_is_found():
    rows = drawn(400, 40, 32, 1.0, 0)[0]
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(5)))[0]
    learned = learn_map(rows, rows @ turn)
    assert learned.agreement > 0.97
    assert torch.allclose(learned(rows), rows @ turn, atol=0.15)
    few = learn_map(rows[:24], (rows @ turn)[:24, :7])  # fewer rows than dimensions
    assert few.matrix.shape == (32, 7)


def test_a_map_and_what_it_does_not_know_are_a_gaussian_process():
    """The posterior of a process with the kernel ``x · y`` on the rows as they are around their
    mean, of which a mapped row is the mean and the unseen one the covariance.
    """
    (old, new), others = (drawn(120, 30, width, 1.0, 1)[0] for width in (24, 16)), drawn(
        50, 30, 24, 1.0, 2)[0]
    learned = learn_map(old, new)
    centre = old.mean(0)
    x, asked = (old - centre).double().numpy(), (others - centre).double().numpy()
    noise = float(learned.kind.split()[1]) * (x ** 2).sum() / 24
    inverse = np.linalg.inv(x @ x.T + noise * np.eye(120))
    mapped = asked @ x.T @ inverse @ (new - new.mean(0)).double().numpy() + new.mean(0).numpy()
    assert learned(others).numpy() == pytest.approx(
        mapped / np.linalg.norm(mapped, axis=1, keepdims=True), abs=1e-4)
    covariance = asked @ asked.T - asked @ x.T @ inverse @ x @ asked.T
    unseen = learned.unseen(others).double().numpy()
    share = (unseen ** 2).sum() / np.trace(covariance)
    assert unseen @ unseen.T == pytest.approx(share * covariance, abs=1e-4)
    # with what is mapped it is as long as an embedding
    assert learned.cosine + (unseen ** 2).sum(1).mean() == pytest.approx(1, abs=0.05)
    fresh = drawn(50, 30, 16, 1.0, 2)[0]
    assert learned.cosine == pytest.approx(float((learned(others) * fresh).sum(1).mean()), abs=0.1)


def test_the_better_a_map_the_less_is_unseen():
    old, new = drawn(1000, 60, 24, 0.3, 1)[0], drawn(1000, 60, 16, 0.3, 1)[0]
    sizes = [float(learn_map(old[:count], new[:count]).unseen(old).square().sum(1).mean())
             for count in (10, 30, 1000)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[2]


def test_rows_that_are_all_alike():
    learned = learn_map(torch.ones(20, 4), torch.eye(2).repeat(10, 1))
    assert all(bool(one(torch.ones(3, 4)).isfinite().all()) for one in (learned, learned.unseen))


@pytest.mark.parametrize('count', [3, 9])
def test_too_few_rows(count):
    rows = torch.randn(count, 4)
    with pytest.raises(ValueError, match='10 or more'):
        learn_map(rows, rows)
    ids = list(map(str, range(count)))
    with pytest.raises(ValueError, match='10 at least'):
        ModelChange(Gallery(rows, ids), Gallery(rows, ids))


def average_precision(scores, same):
    ranked = same.gather(1, scores.argsort(1, descending=True)).double()
    precision = ranked.cumsum(1) / torch.arange(1, ranked.shape[1] + 1)
    return float(((precision * ranked).sum(1) / ranked.sum(1)).mean())


@pytest.fixture(scope='module')
def models():
    """Rows and queries of an old, noisy model of width 24 and of a better one of width 16."""
    made = {}
    for name, width, noise in (('old', 24, 1.1), ('new', 16, 0.7)):
        made[name] = drawn(600, 60, width, noise, 1)[0], drawn(120, 60, width, noise, 2)[0]
    return made


@pytest.mark.parametrize('weight', [0.5, 1.0])
def test_never_below_the_old_model(models, weight):
    (old, asked_old), (new, asked_new) = models['old'], models['new']
    ids, labels = list(map(str, range(600))), torch.arange(600) % 60
    same = (torch.arange(120) % 60)[:, None] == labels[None]
    before = average_precision(asked_old @ old.T, same)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0)).tolist()
    reached = []
    for count in (40, 150, 300, 450, 600):
        part = order[:count]
        change = ModelChange(Gallery(old, ids, labels),
                             Gallery(new[part], [ids[row] for row in part]), weight)
        assert change.share == pytest.approx(count / 600)
        gallery = change.gallery
        assert list(gallery.ids) == ids and torch.equal(gallery.labels, labels)
        asked = change.join(asked_new, asked_old)
        for one in (asked, gallery.embeddings):
            assert torch.allclose(one.norm(dim=1), torch.ones(len(one)))
        scores = asked @ gallery.embeddings.T
        # an encoded row's is the mean of the cosines, times the same for all rows of a query
        mean = weight * asked_new @ new.T + (1 - weight) * asked_old @ old.T
        length = 1. if weight == 1 else (
            1 + weight * change.map.unseen(asked_old).square().sum(1, keepdim=True)).sqrt()
        assert torch.allclose(scores[:, part] * length, mean[:, part], atol=1e-5)
        reached.append(average_precision(scores, same))
    assert reached == sorted(reached)
    if weight < 1:  # by the new model alone, a map from few rows may be worse than the old one
        assert reached[0] >= before
    else:
        assert reached[-1] == pytest.approx(average_precision(asked_new @ new.T, same))


def test_rows_as_queries(models):
    (old, _), (new, _) = models['old'], models['new']
    change = ModelChange(Gallery(old, list(map(str, range(600)))),
                         Gallery(new[:200], list(map(str, range(200)))))
    blocks = change.gallery.embeddings[500].split([24, 16, 24])  # a mapped row is as short as poor
    assert blocks[1].norm() / blocks[0].norm() == pytest.approx(change.map.cosine ** 0.5)
    asked = change.queries([3, 500])
    assert torch.allclose(asked[0], change.join(new[3:4], old[3:4])[0], atol=1e-6)
    mapped = nn.functional.normalize(torch.cat([old[500], change.map(old[500:501])[0]]), dim=0)
    assert torch.allclose(asked[1], torch.cat([mapped, torch.zeros(24)]), atol=1e-6)
    same = torch.arange(600)[:, None] % 60 == torch.arange(600)[None] % 60
    own = torch.eye(600).bool()
    found, before = (average_precision(scores.masked_fill(own, -9), same & ~own) for scores in (
        change.queries(range(600)) @ change.gallery.embeddings.T, old @ old.T))
    assert found >= before
    alone = ModelChange(change.old, change.new, 1.)
    assert torch.equal(alone.queries([3, 500]), alone.gallery.embeddings[[3, 500]])


def test_what_is_found_most_comes_first():
    assert in_order_of(['a', 'b', 'c', 'd'], {'c': 5, 'd': 1, 'x': 9}) == ['c', 'd', 'a', 'b']
