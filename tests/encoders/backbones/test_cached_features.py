import pytest
import torch
from torch import nn

from retrieval.encoders import ImageEncoder


def test_features_go_through_what_stands_behind_the_pooling():
    encoder = ImageEncoder(dict(type='CachedFeatures', num_features=5), pooling=None, projection=3)
    features = torch.rand(2, 5)
    expected = nn.functional.normalize(encoder.projection(features))
    torch.testing.assert_close(encoder(features[:, :, None, None]), expected)
    assert {name.split('.')[0] for name in encoder.state_dict()} == {'projection'}
    with pytest.raises(ValueError, match='LoadCachedFeatures'):
        encoder(torch.rand(2, 3, 8, 8))
