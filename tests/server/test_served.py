"""A model that is served, and what it searches."""
import pytest
import torch

from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import ExactIndex, MilvusIndex
from retrieval.retrievers import ImageToImageRetriever
from retrieval.server.served import Served

from .conftest import PIPELINE, encoder


@pytest.fixture
def serve():
    made = []

    def make(prototype=None, **options):
        made.append(Served(ImageToImageRetriever(encoder(), prototype), PIPELINE, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


def test_the_fingerprint_is_the_models(serve):
    served = serve()
    assert served.fingerprint == dict(served.model.fingerprint().as_dict())
    assert served.fingerprint is served.fingerprint, 'it is taken once'


def test_pictures_are_encoded_by_its_model_and_pipeline(serve, folder):
    served = serve()
    found = served.encoder(str(folder / 'red' / '0.png'))
    assert found.shape == (12,) and torch.allclose(found[:4], torch.full((4,), 230.))


def test_what_it_searches_now(serve, tmp_path):
    own, published = Gallery(torch.eye(3), list('abc')), Gallery(torch.eye(3), list('xyz'))
    for published_last in (None, published):
        found = serve(own, gallery=published_last).latest()
        assert found is None, 'the prototype of the model'
    assert serve(gallery=published).latest() is published and serve().latest() is None
    store = GalleryStore.create(tmp_path / 's.gallery', own)
    served = serve(own, store=store)
    store.append(Gallery(torch.eye(3)[:1], ['d']))
    assert list(served.latest().ids) == list('abcd')


def test_an_index_that_others_change(serve, monkeypatch):
    assert serve(Gallery(torch.eye(3), list('abc'))).shared is None
    assert serve(ExactIndex()).shared is None
    shared = object.__new__(MilvusIndex)
    served = serve()
    served.model = type('Model', (), dict(prototype=shared))
    assert served.shared is shared
