import numpy as np
import pytest
import torch

from retrieval.encoders import (
    Whitening,
    WhiteningFit,
    fit_learned_whitening,
    fit_pca_whitening,
    fit_whitening,
    fit_zca_whitening,
)
from retrieval.ranking import topk


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)


def applied(fit, rows):
    return (rows - fit.mean) @ fit.projection.T


@pytest.mark.parametrize('fit', [fit_pca_whitening, fit_zca_whitening])
def test_the_covariance_is_the_identity(fit, rows):
    white = applied(fit(rows), rows)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-9)


def test_pca_equals_scikit_learn(rows):
    from sklearn.decomposition import PCA
    peer = PCA(3, whiten=True).fit(rows)
    ours, theirs = applied(fit_pca_whitening(rows, 3), rows), peer.transform(rows)
    signs = np.sign((ours * theirs).sum(0))
    # theirs divides by the variance over N - 1
    np.testing.assert_allclose(ours * signs, theirs * np.sqrt(400 / 399), atol=1e-8)


def test_zca_is_symmetric_and_changes_least(rows):
    projection = fit_zca_whitening(torch.from_numpy(rows)).projection
    np.testing.assert_allclose(projection, projection.T, atol=1e-12)


def published(rows, pairs, dim):
    """Radenović et al.'s code: an inverse Cholesky factor, then eigenvectors of the rest."""
    within = np.zeros((rows.shape[1],) * 2)
    for a, b in pairs:
        within += np.outer(rows[a] - rows[b], rows[a] - rows[b])
    factor = np.linalg.inv(np.linalg.cholesky(within / len(pairs)))
    mean = rows.mean(0)
    turned = (rows - mean) @ factor.T
    values, vectors = np.linalg.eigh(turned.T @ turned)
    return mean, vectors[:, np.argsort(-values)[:dim]].T @ factor


def test_learned_whitening_equals_the_published_one(rows):
    rng = np.random.default_rng(1)
    pairs = rng.integers(0, 400, (300, 2))
    fit = fit_learned_whitening(rows, pairs=pairs, dim=4)
    mean, projection = published(rows, pairs, 4)
    signs = np.sign((fit.projection * projection).sum(1, keepdims=True))
    np.testing.assert_allclose(fit.mean, mean)
    np.testing.assert_allclose(fit.projection, projection * signs, rtol=1e-6, atol=1e-9)
    assert (np.take_along_axis(fit.projection, np.abs(fit.projection).argmax(1)[:, None], 1)
            > 0).all()


def test_labels_are_all_pairs_within_classes(rows):
    labels = np.random.default_rng(2).integers(0, 30, 400)
    pairs = [(a, b) for a in range(400) for b in range(400) if a != b and labels[a] == labels[b]]
    ours = fit_learned_whitening(rows, labels)
    np.testing.assert_allclose(ours.projection, fit_learned_whitening(rows, pairs=pairs).projection,
                               rtol=1e-7, atol=1e-10)


def test_learned_whitening_finds_classes_behind_loud_noise():
    """Two directions tell classes apart, six others are louder: the nearest is another class."""
    rng = np.random.default_rng(3)
    labels = np.arange(240) % 24
    signal = rng.normal(size=(24, 2))[labels] + 0.05 * rng.normal(size=(240, 2))
    rows = np.concatenate([signal, 6 * rng.normal(size=(240, 6))], axis=1) @ np.linalg.qr(
        rng.normal(size=(8, 8)))[0]

    def recall(embeddings):
        found = topk(embeddings.astype(np.float32), embeddings.astype(np.float32), 2,
                     similarity='euclidean').indices
        return float(np.mean(labels[np.asarray(found)[:, 1]] == labels))

    raw, learned = recall(rows), recall(applied(fit_learned_whitening(rows, labels, dim=2), rows))
    assert raw < 0.3 and learned > 0.9


def test_shrinkage_mixes_with_the_identity(rows):
    fit = fit_pca_whitening(rows, shrinkage=0.4)
    covariance = np.cov(rows.T, bias=True)
    shrunk = 0.6 * covariance + 0.4 * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(fit.projection @ shrunk @ fit.projection.T, np.eye(6), atol=1e-9)


def test_rows_that_span_too_little():
    few = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert fit_pca_whitening(few, dim=4).projection.shape == (4, 8)
    with pytest.raises(ValueError, match='span 4 of the 6.*at most 4'):
        fit_pca_whitening(few, dim=6)
    with pytest.raises(ValueError, match='matching pairs span 2 of the 8.*shrinkage'):
        fit_learned_whitening(few, labels=[0, 0, 0, 1, 2])
    fit = fit_learned_whitening(few, [0, 0, 0, 1, 2], dim=3, shrinkage=0.1)
    assert fit.projection.shape == (3, 8)


@pytest.mark.parametrize('make, says', [
    (lambda r: fit_pca_whitening(r[:1]), 'at least two'),
    (lambda r: fit_pca_whitening(r.astype(int)), 'floating point'),
    (lambda r: fit_pca_whitening(np.where(r > 2, np.nan, r)), 'not finite'),
    (lambda r: fit_pca_whitening(r, dim=7), 'at least 1 and at most 6, got 7'),
    (lambda r: fit_pca_whitening(r, shrinkage=1), 'shrinkage'),
    (lambda r: fit_zca_whitening(r, dim=3), "'pca'"),
    (lambda r: fit_learned_whitening(r), 'not both'),
    (lambda r: fit_learned_whitening(r, labels=range(400)), 'No class'),
    (lambda r: fit_learned_whitening(r, labels=[0, 1]), 'one a row'),
    (lambda r: fit_learned_whitening(r, pairs=[[0, 400]]), '400'),
    (lambda r: fit_learned_whitening(r, pairs=np.zeros((0, 2), int)), 'at least one pair'),
    (lambda r: fit_whitening(r, 'pcaw'), "'pca'"),
])
def test_bad_input(make, says, rows):
    with pytest.raises(ValueError, match=says):
        make(rows)


def test_the_module_passes_embeddings_until_it_is_fitted(rows, caplog):
    module = Whitening(6, 3).eval()
    given = torch.from_numpy(rows).float()
    assert torch.equal(module(given), given)
    fit = fit_whitening(rows, 'pca', dim=3)
    module.set(fit)
    torch.testing.assert_close(module(given), torch.from_numpy(applied(fit, rows)).float(),
                               rtol=1e-4, atol=1e-4)
    copy = Whitening(6, 3)
    copy.load_state_dict(module.state_dict())
    assert torch.equal(copy(given), module(given)) and not list(module.parameters())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(module(given), copy(given))


def test_the_module_refuses_what_does_not_fit():
    module = Whitening(6, 3)
    with pytest.raises(ValueError, match='maps 6 to 3'):
        module.set(WhiteningFit(np.zeros(6), np.eye(4, 6)))
    with pytest.raises(ValueError, match='width 6'):
        module(torch.rand(2, 5))
    with pytest.raises(ValueError, match='integer of at least 1'):
        Whitening(6, 0)
