"""A retriever of two models against the embeddings of each, joined by hand."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.gallery import Gallery
from retrieval.retrievers import ImageToImageRetriever
from retrieval.retrievers.changing_retriever import both_pipelines, changing_retriever
from retrieval.retrievers.model_change import learn_map
from retrieval.search import ImageRetrievalInferencer


class Linear(nn.Module):
    """Mean colours times a matrix."""

    def __init__(self, width):
        super().__init__()
        generator = torch.Generator().manual_seed(width)
        self.matrix = nn.Parameter(torch.randn(3, width, generator=generator))

    def forward(self, images):
        return images.mean((2, 3)) @ self.matrix


def test_a_retriever_encodes_with_both_or_maps():
    images = torch.rand(80, 3, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    old, new = (ImageToImageRetriever(Linear(width), topk=1).eval() for width in (5, 4))
    ids = list(map(str, range(80)))
    with torch.no_grad():
        galleries = [Gallery(one.embed(images), ids) for one in (old, new)]
    galleries[1] = galleries[1].subset(range(40))
    for before in (old, None):
        model = changing_retriever(*galleries, new, before)
        assert (model.image_encoder.old is None) == (before is None)
        found = [sample.pred_label.item() for sample in model.predict(images)]
        assert sum(row == place for place, row in enumerate(found)) >= 40


class Corners(nn.Module):
    """Pictures as the colours of their first and their last pixel, and their size."""

    def forward(self, images):
        size = images.new_full((len(images), 1), images.shape[-1] / 10)
        return torch.cat([images[:, :, 0, 0], images[:, :, -1, -1], size], 1)


def loading(*steps):
    return [dict(type='LoadImage'), *steps, dict(type='PackInputs')]


def preprocessor(mean):
    return dict(type='retrieval.RetrievalDataPreprocessor', mean=[mean] * 3, std=[100.] * 3)


@pytest.mark.parametrize('fixed', [True, False])
def test_each_model_sees_a_query_through_its_own_pipeline_and_preprocessor(fixed):
    """As by two inferencers of one model each; also where one batch has several sizes."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (9 + number % 3, 12, 3), np.uint8) for number in range(40)]
    steps = [dict(type='ResizeEdge', scale=6)] + [dict(type='CenterCrop', crop_size=5)] * fixed
    sides = []
    for pipeline, mean in ((loading(), 0.), (loading(*steps), 50.)):
        model = ImageToImageRetriever(Corners(), data_preprocessor=preprocessor(mean), topk=3)
        found = ImageRetrievalInferencer(model, pictures, pipeline=pipeline, progress=False)
        sides.append((found, Gallery(found.model.gallery.embeddings, list(map(str, range(40))))))
    (old, old_rows), (new, new_rows) = sides
    model = changing_retriever(old_rows, new_rows.subset(range(30)), new.model, old.model)
    both = ImageRetrievalInferencer(model, pipeline=both_pipelines(new.pipeline, old.pipeline),
                                    progress=False)
    query = model.image_encoder.change.join(new_rows.embeddings[:9], old_rows.embeddings[:9])
    wanted = (query @ model.gallery.embeddings.T).topk(3).values
    for answers in (both(pictures[:9]), both.composed(*([dict(image=one)]
                                                        for one in pictures[:9]))):
        scores = torch.tensor([[one['score'] for one in answer['results']] for answer in answers])
        torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=0)
        assert [answer['results'][0]['row'] for answer in answers] == list(range(9))


def test_pipelines_that_are_the_same_are_gone_through_once():
    assert both_pipelines(loading(), loading()) == loading()


class Words(nn.Module):
    """Pictures as their mean colour, or the first of these; words as what they count."""

    has_words = True

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, images):
        return images.mean((2, 3))[:, :self.width]

    def embed_words(self, texts):
        return torch.tensor([[float(text.count(one)) for one in 'abc'[:self.width]]
                             for text in texts])


def test_words_are_joined_as_pictures_are():
    rows, ids = torch.rand(30, 3, generator=torch.Generator().manual_seed(0)), list(map(str, range(
        30)))
    old, new = (ImageToImageRetriever(Words(width)) for width in (3, 2))
    model = changing_retriever(Gallery(rows, ids), Gallery(rows[:20, :2], ids[:20]), new, old)
    found = model.embed_words(['aab'])
    words = torch.tensor([[2., 1, 0]])
    unseen = learn_map(rows[:20], rows[:20, :2]).unseen(words)
    expected = torch.cat([words / 5 ** 0.5, words[:, :2] / 5 ** 0.5, unseen], 1)
    torch.testing.assert_close(found, expected / expected.norm())
    mute = ImageToImageRetriever(nn.Flatten())
    assert not changing_retriever(Gallery(rows, ids), Gallery(rows, ids), new, mute).has_words
    assert changing_retriever(Gallery(rows, ids), Gallery(rows[:, :2], ids), new).has_words
