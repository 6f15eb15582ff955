import os
import time
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn

import retrieval.registry  # noqa: F401
from retrieval.datasets import UnreadableImageError
from retrieval.encoders import ImageEncoder
from retrieval.gallery import Gallery
from retrieval.retrievers import (
    ImageToImageRetriever,
    cache_features,
    cached_gallery,
    encoded_file,
)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('retrieval'):
        yield


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / 'pictures' / f'class{number % 2}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
        os.utime(path, (time.time() - 100,) * 2)
    return tmp_path / 'pictures'


def loader(folder, size=8):
    return dict(batch_size=4, num_workers=0, dataset=dict(
        type='ImageFolder', data_root=str(folder), pipeline=[
            dict(type='LoadImage'), dict(type='Resize', scale=(size, size)),
            dict(type='PackInputs')]))


class Counting(nn.Module):
    num_features = 6

    def __init__(self):
        super().__init__()
        self.conv, self._seen = nn.Conv2d(3, 6, 3), 0

    @property
    def seen(self):  # a plain attribute would count as a setting
        return self._seen

    def forward(self, images):
        self._seen += len(images)
        return self.conv(images)


def retriever(**options):
    encoder = ImageEncoder(Counting(), projection=3, **options)
    return ImageToImageRetriever(encoder, torch.eye(3), data_preprocessor=dict(mean=[9.], std=[2.]))


def test_features_are_what_the_encoder_pools_and_are_kept(folder, tmp_path):
    model, path = retriever(), tmp_path / 'f.safetensors'
    gallery, made = cache_features(model, loader(folder), path)
    assert made and len(gallery) == 10 and model.image_encoder.backbone.seen == 10
    for row, name in enumerate(gallery.ids):
        pixels = torch.from_numpy(np.asarray(Image.open(name)).copy()).permute(2, 0, 1)[None]
        pooled = model.image_encoder.backbone.conv((pixels.float() - 9) / 2).mean((2, 3))
        torch.testing.assert_close(gallery.embeddings[row], pooled[0])
        assert gallery.label_name(row) == os.path.basename(os.path.dirname(name))

    seen = model.image_encoder.backbone.seen
    with torch.no_grad():  # what stands behind the pooling does not count
        model.image_encoder.projection.linear.weight.add_(1)
    kept, made = cache_features(model, loader(folder), path)
    assert not made and model.image_encoder.backbone.seen == seen
    assert torch.equal(kept.embeddings, gallery.embeddings)


def test_what_changes_the_features_extracts_them_again(folder, tmp_path):
    model, path = retriever(), tmp_path / 'f.safetensors'
    cache_features(model, loader(folder), path)
    assert cache_features(model, loader(folder, size=6), path)[1]
    cache_features(model, loader(folder), path)
    with torch.no_grad():
        model.image_encoder.backbone.conv.bias.add_(1)
    assert cache_features(model, loader(folder), path)[1]
    assert not cache_features(model, loader(folder), path)[1]
    os.utime(folder / 'class0' / '4.png', (time.time() + 5,) * 2)
    assert cache_features(model, loader(folder), path)[1]
    os.utime(folder / 'class0' / '4.png', (time.time() - 50,) * 2)
    (folder / 'class0' / '4.png').unlink()
    gallery, made = cache_features(model, loader(folder), path)
    assert made and len(gallery) == 9
    path.write_bytes(path.read_bytes()[:-200])
    assert cache_features(model, loader(folder), path)[1]
    assert cache_features(model, loader(folder), path, anew=True)[1]


def test_an_extraction_that_stopped_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_file, 'cached_gallery', partial(cached_gallery, shard_rows=4))
    model, path = retriever(), tmp_path / 'f.safetensors'
    last = max(folder.rglob('*.png'))
    whole = last.read_bytes()
    last.write_bytes(whole[:60])
    with pytest.raises(UnreadableImageError):
        cache_features(model, loader(folder), path)
    assert not path.exists()
    last.write_bytes(whole)
    os.utime(last, (time.time() - 100,) * 2)
    seen = model.image_encoder.backbone.seen
    gallery, _ = cache_features(model, loader(folder), path)
    assert len(gallery) == 10 and model.image_encoder.backbone.seen - seen < 10
    assert not os.path.exists(f'{path}.parts')


def test_another_model_does_not_go_on(folder, tmp_path, monkeypatch):
    from retrieval.gallery import Fingerprint
    from retrieval.retrievers.encoded_parts import PartsFolder
    path = tmp_path / 'f.safetensors'
    left = PartsFolder(f'{path}.parts')
    with left.locked():
        left.begin(Fingerprint(weights='another'), resume=True)
    assert len(cache_features(retriever(), loader(folder), path)[0]) == 10
    assert len(Gallery.load(path)) == 10


def test_other_encoders():
    model = ImageToImageRetriever(nn.Flatten(), torch.eye(3))
    with pytest.raises(TypeError, match='ImageEncoder'):
        cache_features(model, dict(dataset=[]), 'f.safetensors')
