"""What changes an embedding changes the fingerprint."""
import numpy as np
import pytest
import torch
from torch import nn

from retrieval.encoders import ImageEncoder, WhiteningFit
from retrieval.gallery import Gallery
from retrieval.retrievers import ImageToImageRetriever


def retriever(prototype=None, **options):
    torch.manual_seed(0)
    encoder = ImageEncoder(nn.Conv2d(3, 4, 3), in_features=4, **options)
    return ImageToImageRetriever(encoder, torch.eye(4) if prototype is None else prototype)


def fitted(factor=1.0):
    model = retriever(whitening=dict(out_features=2))
    model.image_encoder.whitening.set(WhiteningFit(np.zeros(4), factor * np.eye(2, 4)))
    return model


@pytest.mark.parametrize('one, other, parts', [
    (retriever, fitted, ['weights', 'whitening']),
    (fitted, lambda: fitted(2.0), ['weights']),
    (retriever, lambda: retriever(multi_scale=(1, 0.5)), ['pooling']),
    (lambda: retriever(multi_scale=(1, 0.5)),
     lambda: retriever(multi_scale=dict(scales=(1, 0.5), flip=True)), ['pooling']),
    (lambda: retriever(pooling=dict(type='retrieval.GeM+', p=4.0)),
     lambda: retriever(pooling=dict(type='retrieval.GeM+', p=5.0)), ['pooling']),
    (lambda: retriever(pooling=dict(type='retrieval.RMAC')),
     lambda: retriever(pooling=dict(type='retrieval.RMAC', levels=2)), ['pooling']),
    (fitted, fitted, []),
])
def test_the_parts_that_differ(one, other, parts):
    first, second = one().fingerprint(), other().fingerprint()
    found = [name for name in ('weights', 'pooling', 'whitening')
             if getattr(first, name) != getattr(second, name)]
    assert found == parts


def test_a_gallery_without_whitening_is_refused():
    made = Gallery(np.eye(4, dtype='float32'), fingerprint=retriever().fingerprint())
    model = fitted()
    model.prototype = made
    with pytest.raises(ValueError, match='whitening'):
        model.prepare_prototype()
