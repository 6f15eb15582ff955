"""What every retriever does, with one that writes the least."""
import pytest
import torch

from retrieval.retrievers import BaseRetriever
from retrieval.structures import RetrievalDataSample


class Least(BaseRetriever):
    """Notes what it is asked for; what was found for an image is its height."""

    def __init__(self):
        super().__init__(data_preprocessor=dict(type='retrieval.RetrievalDataPreprocessor'))
        self.prototype, self.prepared, self.seen = 'own', 0, []

    def extract_feat(self, inputs):
        return inputs.mean((1, 2, 3))

    def loss(self, inputs, data_samples):
        return dict(loss=inputs.sum() * len(data_samples))

    def predict(self, inputs, data_samples=None, **kwargs):
        self.seen.append(tuple(inputs.shape))
        return [sample.set_pred_label([inputs.shape[2]]) for sample in data_samples]

    def prepare_prototype(self):
        self.prepared += 1

    matching = dump_prototype = None


def test_modes():
    model, images, samples = Least(), torch.ones(2, 3, 4, 4), [RetrievalDataSample()] * 2
    assert model(images).tolist() == [1, 1]
    assert model(images, samples, 'loss')['loss'] == 2 * images.sum()
    assert model(images, samples, 'predict')[0].pred_label.tolist() == [4]
    with pytest.raises(ValueError, match="'features'. Valid modes: tensor, predict, loss"):
        model(images, mode='features')


def test_what_a_retriever_must_write():
    class Without(Least):
        predict = BaseRetriever.predict
    with pytest.raises(TypeError, match='abstract.*predict'):
        Without()


@pytest.mark.parametrize('step', ['test_step', 'val_step'])
def test_images_of_unequal_size_are_answered_one_size_after_the_other(step):
    model, heights = Least(), [4, 6, 4, 5, 6]
    samples = [RetrievalDataSample(metainfo=dict(sample_idx=row)) for row in range(5)]
    found = getattr(model, step)(dict(inputs=[torch.ones(3, height, 4) for height in heights],
                                      data_samples=samples))
    assert [sample.sample_idx for sample in found] == list(range(5))
    assert [sample.pred_label.item() for sample in found] == heights
    assert sorted(model.seen) == [(1, 3, 5, 4), (2, 3, 4, 4), (2, 3, 6, 4)]


def test_an_evaluation_prepares_and_another_prototype_is_taken():
    model = Least()
    assert model.begin_evaluation(None) is None and model.prepared == 1
    assert model.end_evaluation() is None
    model.search_in()
    assert model.prototype == 'own'
    model.search_in('other', pipeline=[], dataset=None)
    assert model.prototype == 'other'
