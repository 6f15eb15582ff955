"""A model that is served, and what it searches."""
import numpy as np
import pytest
import torch

from retrieval.evaluation import calibrate_without_labels
from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import ExactIndex, MilvusIndex
from retrieval.retrievers import ImageToImageRetriever
from retrieval.server.served import Served
from retrieval.server.service import Query, Service, Source

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


def rows(count):
    """Pairs of near-copies among strangers."""
    drawn = torch.randn(count // 2, 24, generator=torch.Generator().manual_seed(0))
    both = drawn.repeat_interleave(2, dim=0)
    return both + 0.1 * torch.randn(both.shape, generator=torch.Generator().manual_seed(1))


def test_the_cut_of_a_gallery_is_made_anew_when_a_tenth_of_it_has_changed(serve):
    served = serve(cut=('no_match', 0.1))
    served.calibrate(Gallery(rows(400)))
    first = served.calibration
    assert first == calibrate_without_labels(rows(400), 'no_match', 0.1, max_queries=500)
    served.calibrate(Gallery(rows(440)))
    assert served.calibration is first
    served.calibrate(Gallery(rows(442)))
    assert served.calibration == calibrate_without_labels(rows(442), 'no_match', 0.1,
                                                          max_queries=500)
    served.calibrate(Gallery(rows(6)))
    assert served.calibration is None


def test_the_line_without_labels(serve, tmp_path):
    served = serve(cut=('no_match', 0.1))
    vectors = rows(400)
    service = Service(served, Source('rows', tmp_path))
    service.publish(Gallery(vectors, [str(row) for row in range(400)]))
    found = service.search([Query(id='8')], k=20, stack=False)['results']
    assert [hit['id'] for hit in found if hit['match'] and hit['id'] != '8'] == ['9']
    stranger = np.random.default_rng(5).normal(size=24).tolist()
    assert service.search([Query(vector=stranger)], k=5)['no_match']
    assert service.info()['calibrated']
    service.close()
