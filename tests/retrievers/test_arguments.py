import pytest
import torch

from retrieval.retrievers import ImageToImageRetriever

from .toy import Encoder


def test_a_head_of_another_width_is_refused_when_the_model_is_built():
    def model(head, projection=8):
        return ImageToImageRetriever(
            dict(type='retrieval.ImageEncoder', backbone=Encoder(6), pooling=None, in_features=6,
                 projection=projection), torch.rand(3, 8), head=head)

    arcface = dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=8)
    assert model(dict(type='retrieval.MetricHead', loss=arcface)).head.embedding_size == 8
    with pytest.raises(ValueError, match='width 6.*MetricHead want 8.*projection=8'):
        model(dict(type='retrieval.MetricHead', loss=arcface), None)
    with pytest.raises(ValueError, match='width 8.*ClassificationHead want 9.*in_features'):
        model(dict(type='retrieval.ClassificationHead', num_classes=3, in_features=9))
