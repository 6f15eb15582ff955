"""The small config of the commands with a checkpoint, and what bundles are made of."""
import numpy as np
import pytest
import torch

from retrieval.evaluation import MatchCalibration
from retrieval.gallery import Gallery
from retrieval.index import FaissIndex, gallery_digest
from retrieval.retrievers import build_retriever
from retrieval.runs.write_bundle import write_bundle

from ..commands.conftest import checkpoint, config, folder, work_dir  # noqa: F401

STEPS = [dict(type='LoadImage'), dict(type='Resize', scale=(24, 24)), dict(type='PackInputs')]
ENCODER = dict(type='ImageEncoder', projection=8, whitening=dict(out_features=4), backbone=dict(
    type='TimmBackbone', model_name='resnet10t', stem_width=8, channels=(8, 8, 8, 8)))
CONFIG = dict(
    model=dict(type='ImageToImageRetriever', image_encoder=ENCODER, topk=3,
               head=dict(type='ClassificationHead', num_classes=4, in_features=8),
               data_preprocessor=dict(mean=[127.] * 3, std=[60.] * 3)),
    test_dataloader=dict(dataset=dict(type='ImageFolder', data_root='/a/path/of/this/machine',
                                      pipeline=STEPS)))
PICTURES = list(np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """A checkpoint with a whitening, a gallery that it made, a calibration and an index."""
    from retrieval.encoders import fit_pca_whitening
    from retrieval.search import ImageRetrievalInferencer

    out = tmp_path_factory.mktemp('trained')
    torch.manual_seed(0)
    model = build_retriever(CONFIG, device='cpu')
    model.image_encoder.whitening.set(fit_pca_whitening(torch.randn(40, 8), dim=4))
    torch.save(dict(state_dict=model.state_dict()), out / 'weights.pth')
    find = ImageRetrievalInferencer(model, PICTURES, pipeline=STEPS, progress=False)
    made = find.model.gallery
    gallery = Gallery(made.embeddings, list('abcdef'), [0, 0, 1, 1, 2, 2], ['x', 'y', 'z'],
                      fingerprint=made.fingerprint, similarity=made.similarity,
                      source=dict(checkpoint='/secret/path.pth', config='/secret'))
    gallery.save(out / 'gallery.safetensors')
    MatchCalibration(0.5, method='platt', slope=9.).save(out / 'calibration.json')
    index = FaissIndex()
    index.add(gallery.embeddings, gallery.ids)
    index.gallery_digest = gallery_digest(gallery.embeddings, gallery.ids)
    index.save(out / 'index.safetensors')
    return out


@pytest.fixture(scope='session')
def plain(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp('plain') / 'mine'
    write_bundle(out, CONFIG, trained / 'weights.pth')
    return out


@pytest.fixture(scope='session', params=['folder', 'zip'])
def whole(request, trained, tmp_path_factory):
    """A bundle with everything in it."""
    out = tmp_path_factory.mktemp('out') / ('mine' if request.param == 'folder' else 'mine.zip')
    write_bundle(out, CONFIG, trained / 'weights.pth', gallery=trained / 'gallery.safetensors',
                 calibration=trained / 'calibration.json', index=trained / 'index.safetensors')
    return out
