"""Only what changed is encoded again, and what is kept is right."""
import os
import shutil

import pytest
import torch
from PIL import Image

from retrieval.encoded_folder import STATE
from retrieval.gallery import Gallery
from retrieval.search import ImageRetrievalInferencer, cache_beside
from retrieval.structures import sample_id_of

from .pictures import PIPELINE, picture, retriever, write


@pytest.fixture
def folder(tmp_path):
    for seed in range(8):
        write(tmp_path / 'photos' / f'{seed}.png', seed)
    return tmp_path / 'photos'


def opened(folder, cache, seed=0, pipeline=PIPELINE, model=None, **options):
    """An inferencer, and how many images its encoder had to look at."""
    model = retriever(seed=seed) if model is None else model
    inferencer = ImageRetrievalInferencer(model, folder, cache, pipeline=pipeline, **options)
    return inferencer, sum(model.image_encoder.seen)


def fresh(folder):
    return ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE).model.gallery


def same(gallery, other):
    return (list(gallery.ids) == list(other.ids)
            and torch.allclose(gallery.embeddings, other.embeddings, rtol=1e-4,
                               atol=1e-2))  # of values of some thousands


def test_nothing_changed_nothing_encoded(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    first, seen = opened(folder, cache)
    assert seen == 8 and first.cache_report[:4] == (0, 8, 0, 0)
    written = cache.stat().st_mtime_ns
    again, seen = opened(folder, cache)
    assert seen == 0 and again.cache_report[:4] == (8, 0, 0, 0)
    assert cache.stat().st_mtime_ns == written
    assert same(again.model.gallery, fresh(folder))
    assert again(picture(3)) == first(picture(3))
    assert STATE not in again(picture(3))[0]['results'][0]['metadata']


def test_new_changed_and_removed_images(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    opened(folder, cache)
    write(folder / '55.png', 55)
    write(folder / 'deep' / '9.png', 9)
    write(folder / '2.png', 200)
    os.utime(folder / '2.png', (1, 1))
    (folder / '4.png').unlink()
    again, seen = opened(folder, cache)
    assert seen == 3 and again.cache_report[:4] == (6, 2, 1, 1) and again.cache_report.encoded == 3
    assert same(again.model.gallery, fresh(folder))
    _, seen = opened(folder, cache)
    assert seen == 0
    (folder / '5.png').unlink()
    again, seen = opened(folder, cache)
    assert seen == 0 and again.cache_report.removed == 1
    assert same(again.model.gallery, fresh(folder))
    assert len(Gallery.load(cache)) == 8


def test_another_model_or_pipeline_encodes_anew(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    opened(folder, cache)
    other = [PIPELINE[0], dict(PIPELINE[1], interpolation='nearest'), PIPELINE[2]]
    for options in (dict(seed=1), dict(pipeline=other), dict(), dict(
            model=retriever(data_preprocessor=dict(to_rgb=True)))):
        _, seen = opened(folder, cache, **options)
        assert seen == 8, options


def test_a_setting_without_weights_counts(folder, tmp_path):
    """A pooling has no weights that a fingerprint could see."""
    cache = tmp_path / 'cache.safetensors'
    opened(folder, cache)
    model = retriever()
    model.image_encoder.power = 3
    assert opened(folder, cache, model=model)[1] == 8


def test_the_content_may_be_compared(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    opened(folder, cache, compare='content')
    for path in folder.iterdir():
        os.utime(path, (5, 5))
    assert opened(folder, cache, compare='content')[1] == 0
    status = (folder / '1.png').stat()
    image = bytearray((folder / '1.png').read_bytes())
    Image.fromarray(picture(77)).save(folder / '1.png', compress_level=6)
    os.utime(folder / '1.png', ns=(status.st_atime_ns, status.st_mtime_ns))
    again, seen = opened(folder, cache, compare='content')
    assert seen == 1 and same(again.model.gallery, fresh(folder))
    assert image != (folder / '1.png').read_bytes()


def test_the_folder_may_move(folder, tmp_path, monkeypatch):
    opened(folder, cache_beside(folder))
    shutil.copytree(folder, tmp_path / 'elsewhere')
    for path in folder.rglob('*.png'):
        status = path.stat()
        os.utime(tmp_path / 'elsewhere' / path.name, ns=(status.st_atime_ns, status.st_mtime_ns))
    shutil.rmtree(folder)
    moved, seen = opened(tmp_path / 'elsewhere', cache_beside(tmp_path / 'elsewhere'))
    assert seen == 0 and moved.model.gallery.ids[0] == str(tmp_path / 'elsewhere' / '0.png')
    monkeypatch.chdir(tmp_path)
    relative, seen = opened('elsewhere', cache_beside('elsewhere'))
    assert seen == 0 and relative.model.gallery.ids[0] == os.path.join('elsewhere', '0.png')


def test_a_damaged_cache_is_replaced(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    opened(folder, cache)
    data = cache.read_bytes()
    for broken in (data[:100], b'', b'nonsense', data[:-50]):
        cache.write_bytes(broken)
        again, seen = opened(folder, cache)
        assert seen == 8 and same(again.model.gallery, fresh(folder))
    torch.save(torch.eye(3), tmp_path / 'tensor.pth')
    assert opened(folder, tmp_path / 'tensor.pth')[1] == 8


def test_pictures_in_memory_are_known_by_their_pixels(tmp_path):
    cache = tmp_path / 'cache.safetensors'
    images = [picture(seed) for seed in range(5)]
    assert opened(images, cache)[1] == 5
    again, seen = opened([*images[1:], picture(9)], cache)
    assert seen == 1 and again.cache_report[:4] == (4, 1, 0, 1)
    assert list(again.model.gallery.ids)[:4] == [sample_id_of(sample) for sample in
                                                 again.samples(images[1:])]


def test_labels_and_metadata_are_the_datasets_of_today(tmp_path):
    for seed in range(6):
        write(tmp_path / 'shapes' / 'xz'[seed % 2] / f'{seed}.png', seed)
    cache = tmp_path / 'cache.safetensors'
    opened(tmp_path / 'shapes', cache)
    write(tmp_path / 'shapes' / 'y' / 'new.png', 20)  # moves the number of the class z
    again, seen = opened(tmp_path / 'shapes', cache)
    assert seen == 1
    gallery = again.model.gallery
    assert [gallery.label_name(row) for row in range(7)] == [
        name.split('/')[-2] for name in gallery.ids]


def test_unreadable_images_are_tried_again(folder, tmp_path):
    cache = tmp_path / 'cache.safetensors'
    (folder / '3.png').write_bytes(b'cut')
    first, seen = opened(folder, cache, on_unreadable='skip')
    assert seen == 7 and list(first.model.gallery.skipped) == [str(folder / '3.png')]
    again, seen = opened(folder, cache, on_unreadable='skip')
    assert seen == 0 and again.model.gallery.skipped
    write(folder / '3.png', 3)
    mended, seen = opened(folder, cache, on_unreadable='skip')
    assert seen == 1 and same(mended.model.gallery, fresh(folder))
    (folder / '3.png').write_bytes(b'cut')
    broken, seen = opened(folder, cache, on_unreadable='skip')
    assert seen == 0 and len(broken.model.gallery) == 7


def test_a_cache_that_cannot_be_written_does_not_stop_a_search(folder, tmp_path):
    (tmp_path / 'file').write_text('')
    inferencer, seen = opened(folder, tmp_path / 'file' / 'cache.safetensors')
    assert seen == 8 and inferencer(picture(2))[0]['results'][0]['row'] == 2


def test_a_cache_in_the_folder_is_no_image(folder):
    opened(folder, cache_beside(folder))
    assert len(fresh(folder)) == 8


@pytest.mark.parametrize('call, error, says', [
    (lambda f, c: opened(f, c, compare='size'), ValueError, 'stat'),
    (lambda f, c: opened(torch.utils.data.TensorDataset(torch.eye(3)), c), TypeError,
     'identities'),
])
def test_wrong_input(folder, tmp_path, call, error, says):
    with pytest.raises(error, match=says):
        call(folder, tmp_path / 'cache.safetensors')
