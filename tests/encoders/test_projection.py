"""The neck against the formula of batch normalisation, the start against scikit-learn."""
import numpy as np
import pytest
import torch

from retrieval.encoders import BatchNormNeck, Projection, start_at_components


def test_training_returns_both_sides_of_the_norm():
    neck = BatchNormNeck(3).train()
    features = torch.randn(6, 3) * 4 + 7
    before, after = neck(features)
    mean = sum(row for row in features) / 6
    variance = sum((row - mean) ** 2 for row in features) / 6
    assert torch.equal(before, features)
    torch.testing.assert_close(after, (features - mean) / (variance + 1e-5).sqrt())


def test_evaluation_returns_embeddings_after_the_norm_by_its_statistics():
    neck = BatchNormNeck(2).eval()
    neck.norm.running_mean.copy_(torch.tensor([1.0, -2.0]))
    neck.norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    # (3 - 1) / 2 = 1 and (4 + 2) / 3 = 2, over the length sqrt(5)
    torch.testing.assert_close(neck(torch.tensor([[3.0, 4.0]])),
                               torch.tensor([[1.0, 2.0]]) / 5 ** 0.5, rtol=1e-5, atol=1e-5)
    plain = BatchNormNeck(2, normalize=False).eval()
    torch.testing.assert_close(plain(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]),
                               rtol=1e-4, atol=1e-4)


def test_the_shift_is_not_trained():
    neck = BatchNormNeck(4)
    assert {name for name, weight in neck.named_parameters() if weight.requires_grad} == {
        'norm.weight'}


@pytest.mark.parametrize('width', [0, -1, 2.5, True, '8'])
def test_a_width_that_is_none(width):
    with pytest.raises((TypeError, ValueError), match='integer of at least 1'):
        BatchNormNeck(width)


def test_features_of_another_width():
    with pytest.raises(ValueError, match=r'in_features=4.*\(2, 3\)'):
        BatchNormNeck(4)(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r'\(2, 4, 7, 7\)'):
        BatchNormNeck(4)(torch.ones(2, 4, 7, 7))


def test_a_projection_starts_at_the_principal_components():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).normal(size=(50, 6)).astype('float32') ** 3
    projection = Projection(6, 2)
    assert start_at_components(projection, rows)
    ours = projection(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(PCA(2).fit_transform(rows)), atol=1e-4)


@pytest.mark.parametrize('other', [Projection(6, 2, hidden_features=4), Projection(6, 8),
                                   Projection(6, norm=True), torch.nn.Identity()])
def test_other_projections_stay_as_they_are(other):
    before = [weight.clone() for weight in other.parameters()]
    assert not start_at_components(other, np.eye(6))
    assert all(map(torch.equal, before, other.parameters()))
