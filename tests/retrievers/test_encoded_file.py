"""Encoded sets in files: dumps, features and kept galleries; killed, resumed, renewed."""
import os
import shutil
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn
from torch.utils.data import SubsetRandomSampler

import retrieval.registry  # noqa: F401
from retrieval.datasets import UnreadableImageError
from retrieval.encoders import ImageEncoder
from retrieval.gallery import Fingerprint, Gallery, GalleryStore
from retrieval.retrievers import (
    ImageToImageRetriever,
    cache_features,
    cached_gallery,
    dump_in_parts,
    encoded_file,
)
from retrieval.retrievers.encoded_file import identities
from retrieval.retrievers.encoded_parts import PartsFolder
from retrieval.retrievers.prototype import build_loader

from ..processes import leave_group
from .toy import Encoder, Images, loader


@pytest.fixture
def images():
    return Images(11)


def retriever(images, **kwargs):
    torch.manual_seed(0)
    return ImageToImageRetriever(Encoder(), loader(images, **kwargs)).eval()


def same(one, two):
    assert torch.equal(one.embeddings, two.embeddings), 'not equal to the last bit'
    assert list(one.ids) == list(two.ids) and one.labels.tolist() == two.labels.tolist()
    assert one.label_names == two.label_names and one.fingerprint == two.fingerprint
    assert one.similarity == two.similarity == 'cosine_similarity'


@pytest.mark.parametrize('shard_rows', [1, 4, 100])
def test_a_dump_in_parts_is_the_gallery(tmp_path, images, shard_rows):
    model = retriever(images)
    dump_in_parts(model, tmp_path / 'g.safetensors', shard_rows=shard_rows, checkpoint='x.pth')
    opened = Gallery.load(tmp_path / 'g.safetensors')
    same(opened, model.gallery)
    assert opened.source['checkpoint'] == 'x.pth' and opened.fingerprint.weights
    assert [path.name for path in tmp_path.iterdir()] == ['g.safetensors']


def test_a_store_and_half_precision(tmp_path, images):
    model = retriever(images)
    dump_in_parts(model, tmp_path / 'g.gallery', dtype='float16')
    store = GalleryStore.open(tmp_path / 'g.gallery')
    assert store.load().dtype == 'float16'
    assert torch.equal(store.load().embeddings, model.gallery.embeddings.half().float())
    with pytest.raises(FileExistsError, match='--switch'):
        dump_in_parts(model, tmp_path / 'g.gallery')


class Interrupted(Exception):
    pass


def test_what_is_encoded_is_not_encoded_again(tmp_path, images):
    """The encoder fails after so many batches; the next call goes on where it was written."""
    path, model = tmp_path / 'g.safetensors', retriever(images)
    whole = retriever(Images(11)).gallery
    real = model.image_encoder.forward
    seen = []
    for batches in (1, 2):
        allowed = len(seen) + batches

        def forward(inputs, allowed=allowed):
            if len(seen) == allowed:
                raise Interrupted
            seen.append(len(inputs))
            return real(inputs)
        model.image_encoder.forward = forward
        with pytest.raises(Interrupted):
            dump_in_parts(model, path, shard_rows=3)
        assert not path.exists() and (tmp_path / 'g.safetensors.parts').is_dir()
    model.image_encoder.forward = real
    reads = list(images.reads)
    dump_in_parts(model, path, shard_rows=3)
    assert [after - before for before, after in zip(reads, images.reads, strict=True)] == [
        0] * 9 + [1] * 2
    same(Gallery.load(path), whole)
    assert [path.name for path in tmp_path.iterdir()] == ['g.safetensors']


def test_another_model_is_refused_and_can_start_anew(tmp_path, images):
    path, model = tmp_path / 'g.safetensors', retriever(images)
    real = model.image_encoder.forward
    model.image_encoder.forward = lambda inputs: real(inputs) * float('nan')
    with pytest.raises(ValueError, match="'image0.png' is not finite"):
        dump_in_parts(model, path, shard_rows=3)
    other = retriever(images)
    with torch.no_grad():
        other.image_encoder.linear.weight[0, 0] += 1
    with pytest.raises(ValueError, match='begun by another model'):
        dump_in_parts(other, path)
    dump_in_parts(other, path, resume=False)
    same(Gallery.load(path), other.gallery)


def test_a_sampler_of_its_own_and_a_tensor_are_written_at_once(tmp_path, images):
    torch.manual_seed(0)
    model = ImageToImageRetriever(Encoder(), loader(images, sampler=SubsetRandomSampler([4, 2])))
    dump_in_parts(model, tmp_path / 'a.safetensors')
    assert sorted(Gallery.load(tmp_path / 'a.safetensors').ids) == ['image2.png', 'image4.png']
    model = ImageToImageRetriever(Encoder(), torch.ones(3, 5))
    dump_in_parts(model, tmp_path / 'b.safetensors', dtype='int8')
    assert Gallery.load(tmp_path / 'b.safetensors').dtype == 'int8'


def test_wrong_arguments(tmp_path, images):
    model = retriever(images)
    for words, arguments in (('safetensors', ('g.pth',)), ('float16', ('g.safetensors', 'half')),
                             ('shard_rows', ('g.safetensors', 'float16', 0))):
        with pytest.raises(ValueError, match=words):
            dump_in_parts(model, tmp_path / arguments[0], *arguments[1:])
    assert not list(tmp_path.iterdir())


def test_identities():
    assert identities(Images(3)) == ['0', '1', '2']

    class Told(Images):
        sample_ids = ['x', 'y', 'x']
    with pytest.raises(ValueError, match='same id'):
        identities(Told(3))

    class Described(Images):
        def get_data_info(self, row):
            return dict(img_path=f'{row}.png')
    assert identities(Described(2)) == ['0.png', '1.png']


# Features of a training set ----------------------------------------------------------------------


@pytest.fixture
def scope():
    with DefaultScope.overwrite_default_scope('retrieval'):
        yield


@pytest.fixture
def folder(tmp_path, scope):
    rng = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / 'pictures' / f'class{number % 2}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
        os.utime(path, (time.time() - 100,) * 2)
    return tmp_path / 'pictures'


def pictures(folder, size=8):
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


def extractor(**options):
    encoder = ImageEncoder(Counting(), projection=3, **options)
    return ImageToImageRetriever(encoder, torch.eye(3), data_preprocessor=dict(mean=[9.], std=[2.]))


def test_features_are_what_the_encoder_pools_and_are_kept(folder, tmp_path):
    model, path = extractor(), tmp_path / 'f.safetensors'
    gallery, made = cache_features(model, pictures(folder), path)
    assert made and len(gallery) == 10 and model.image_encoder.backbone.seen == 10
    for row, name in enumerate(gallery.ids):
        pixels = torch.from_numpy(np.asarray(Image.open(name)).copy()).permute(2, 0, 1)[None]
        pooled = model.image_encoder.backbone.conv((pixels.float() - 9) / 2).mean((2, 3))
        torch.testing.assert_close(gallery.embeddings[row], pooled[0])
        assert gallery.label_name(row) == os.path.basename(os.path.dirname(name))

    seen = model.image_encoder.backbone.seen
    with torch.no_grad():  # what stands behind the pooling does not count
        model.image_encoder.projection.linear.weight.add_(1)
    kept, made = cache_features(model, pictures(folder), path)
    assert not made and model.image_encoder.backbone.seen == seen
    assert torch.equal(kept.embeddings, gallery.embeddings)


def test_what_changes_the_features_extracts_them_again(folder, tmp_path):
    model, path = extractor(), tmp_path / 'f.safetensors'
    cache_features(model, pictures(folder), path)
    assert cache_features(model, pictures(folder, size=6), path)[1]
    cache_features(model, pictures(folder), path)
    with torch.no_grad():
        model.image_encoder.backbone.conv.bias.add_(1)
    assert cache_features(model, pictures(folder), path)[1]
    assert not cache_features(model, pictures(folder), path)[1]
    os.utime(folder / 'class0' / '4.png', (time.time() + 5,) * 2)
    assert cache_features(model, pictures(folder), path)[1]
    os.utime(folder / 'class0' / '4.png', (time.time() - 50,) * 2)
    (folder / 'class0' / '4.png').unlink()
    gallery, made = cache_features(model, pictures(folder), path)
    assert made and len(gallery) == 9
    path.write_bytes(path.read_bytes()[:-200])
    assert cache_features(model, pictures(folder), path)[1]
    assert cache_features(model, pictures(folder), path, anew=True)[1]


def test_an_extraction_that_stopped_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_file, 'cached_gallery', partial(cached_gallery, shard_rows=4))
    model, path = extractor(), tmp_path / 'f.safetensors'
    last = max(folder.rglob('*.png'))
    whole = last.read_bytes()
    last.write_bytes(whole[:60])
    with pytest.raises(UnreadableImageError):
        cache_features(model, pictures(folder), path)
    assert not path.exists()
    last.write_bytes(whole)
    os.utime(last, (time.time() - 100,) * 2)
    seen = model.image_encoder.backbone.seen
    gallery, _ = cache_features(model, pictures(folder), path)
    assert len(gallery) == 10 and model.image_encoder.backbone.seen - seen < 10
    assert not os.path.exists(f'{path}.parts')


def test_features_do_not_go_on_with_another_model(folder, tmp_path):
    path = tmp_path / 'f.safetensors'
    left = PartsFolder(f'{path}.parts')
    with left.locked():
        left.begin(Fingerprint(weights='another'), resume=True)
    assert len(cache_features(extractor(), pictures(folder), path)[0]) == 10
    assert len(Gallery.load(path)) == 10


def test_features_of_other_encoders():
    model = ImageToImageRetriever(nn.Flatten(), torch.eye(3))
    with pytest.raises(TypeError, match='ImageEncoder'):
        cache_features(model, dict(dataset=[]), 'f.safetensors')


def test_only_new_and_changed_images_are_extracted_with_the_labels_of_today(folder, tmp_path):
    model, path = extractor(), tmp_path / 'f.safetensors'
    cache_features(model, pictures(folder), path)
    seen = model.image_encoder.backbone.seen
    os.utime(folder / 'class0' / '4.png', (1, 1))
    (folder / 'before').mkdir()  # a class that moves the numbers of the others
    shutil.copy(folder / 'class1' / '3.png', folder / 'before' / 'new.png')
    features, made = cache_features(model, pictures(folder), path)
    assert made and model.image_encoder.backbone.seen - seen == 2
    whole, _ = cache_features(extractor_like(model), pictures(folder), tmp_path / 'g.safetensors')
    torch.testing.assert_close(features.embeddings, whole.embeddings)
    for gallery in (features, Gallery.load(path)):
        assert list(gallery.ids) == list(whole.ids)
        assert gallery.labels.tolist() == whole.labels.tolist()
        assert gallery.label_names == whole.label_names == ['before', 'class0', 'class1']


def test_images_that_another_set_has_too_are_extracted_once(folder, tmp_path):
    model = extractor()
    files = [tmp_path / name for name in ('queries.safetensors', 'gallery.safetensors')]
    loaders = [pictures(folder), pictures(folder)]
    loaders[0]['dataset']['indices'] = [7, 2, 4]
    queries, _ = cache_features(model, loaders[0], files[0])
    gallery, _ = cache_features(model, loaders[1], files[1], beside=files[:1])
    assert model.image_encoder.backbone.seen == 10
    assert len(Gallery.load(files[1])) == 10
    alone, _ = cache_features(extractor_like(model), loaders[1], tmp_path / 'alone.safetensors')
    torch.testing.assert_close(gallery.embeddings, alone.embeddings)
    assert list(gallery.ids) == list(alone.ids)
    assert gallery.labels.tolist() == alone.labels.tolist()
    # of another pipeline nothing is taken
    cache_features(model, pictures(folder, size=6), tmp_path / 'other.safetensors', beside=files)
    assert model.image_encoder.backbone.seen == 20


def extractor_like(model):
    other = extractor()
    other.load_state_dict(model.state_dict())
    return other


def test_features_that_cannot_be_written_are_an_error(folder, tmp_path):
    (tmp_path / 'file').write_text('')
    for count in (4, 1024):
        with pytest.raises(OSError, match='file'):
            cached_gallery(extractor().up_to('pooling'), build_loader(pictures(folder)),
                           tmp_path / 'file' / 'f.safetensors', shard_rows=count, must_write=True)


# A gallery that is kept ---------------------------------------------------------------------------


class Stopping:
    """Lets an encoder fail after so many images."""

    def __init__(self, encoder, images, error=Interrupted):
        self.encoder, self.left, self.error = encoder, images, error
        self.forward = self.encoder.forward
        self.encoder.forward = self

    def __call__(self, inputs):
        self.left -= len(inputs)
        if self.left < 0:
            self.encoder.forward = self.forward
            raise self.error
        return self.forward(inputs)


def kept(model, folder, path, **options):
    """A kept gallery by parts of four rows, and how many images the encoder had to look at."""
    seen = model.image_encoder.backbone.seen
    gallery, report = cached_gallery(model.up_to('pooling'), build_loader(pictures(folder)), path,
                                     shard_rows=4, **options)
    return gallery, report, model.image_encoder.backbone.seen - seen


@pytest.mark.parametrize('change, encoded', [
    (lambda folder: None, 2), (lambda folder: os.utime(folder / 'class0' / '0.png', (1, 1)), 3),
    (lambda folder: (folder / 'class0' / '0.png').unlink(), 2)])
def test_what_a_kill_left_is_kept_as_far_as_it_still_holds(folder, tmp_path, change, encoded):
    model, path = extractor(), tmp_path / 'kept.safetensors'
    Stopping(model.image_encoder.backbone, 8)
    with pytest.raises(Interrupted):
        kept(model, folder, path)
    left = tmp_path / 'kept.safetensors.parts'
    assert not path.exists() and len(list(left.glob('part-*'))) == 2
    change(folder)
    gallery, report, seen = kept(model, folder, path)
    assert seen == report.encoded == encoded and not left.exists()
    assert report.kept == len(gallery) - encoded
    whole, *_ = kept(extractor_like(model), folder, tmp_path / 'whole.safetensors')
    torch.testing.assert_close(gallery.embeddings, whole.embeddings)
    assert list(gallery.ids) == list(whole.ids)
    assert kept(model, folder, path)[1:] == ((len(gallery), 0, 0, 0, {}, False), 0)


@pytest.mark.parametrize('error', [Interrupted, KeyboardInterrupt, SystemExit])
def test_whatever_ends_a_call_what_it_encoded_is_kept(folder, tmp_path, error):
    model, path = extractor(), tmp_path / 'kept.safetensors'
    Stopping(model.image_encoder.backbone, 8, error)
    with pytest.raises(error):  # long before a part is full
        cached_gallery(model.up_to('pooling'), build_loader(pictures(folder)), path)
    gallery, report, seen = kept(model, folder, path)
    assert len(gallery) == 10 and report.kept == 8 and report.new == seen == 2


def test_an_embedding_that_is_not_finite_ends_a_call_and_the_batches_before_are_kept(
        folder, tmp_path):
    model, path = extractor(), tmp_path / 'kept.safetensors'
    real = model.image_encoder.backbone.forward
    calls = []

    def forward(inputs):
        calls.append(len(inputs))
        return real(inputs) * torch.tensor([1, float('nan') if len(calls) == 2 else 1, 1, 1]
                                           )[:len(inputs), None, None, None]
    model.image_encoder.backbone.forward = forward
    with pytest.raises(ValueError, match=r"class1/1.png' is not finite.*0 more"):
        cached_gallery(model.up_to('pooling'), build_loader(pictures(folder)), path)
    model.image_encoder.backbone.forward = real
    assert kept(model, folder, path)[1].kept == 4


def test_parts_are_written_every_few_seconds(folder, tmp_path, monkeypatch):
    model, path = extractor(), tmp_path / 'kept.safetensors'
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(encoded_file.time, 'monotonic', lambda: next(ticks))
    monkeypatch.setattr(PartsFolder, 'remove', lambda self: None)
    cached_gallery(model.up_to('pooling'), build_loader(pictures(folder)), path)
    assert sorted(len(part.keys) for part in PartsFolder(f'{path}.parts').parts()) == [2, 4, 4]


def test_unreadable_images_are_neither_new_nor_a_reason_to_write(folder, tmp_path):
    (folder / 'class0' / 'broken.png').write_text('nonsense')
    model, path = extractor(), tmp_path / 'kept.safetensors'
    loader = build_loader(pictures(folder))
    loader.dataset.on_unreadable = 'skip'
    for wanted in ((0, 10, 0, 0), (10, 0, 0, 0)):
        gallery, report = cached_gallery(model.up_to('pooling'), loader, path)
        assert len(gallery) == 10 and report[:4] == wanted and list(gallery.skipped) == [
            str(folder / 'class0' / 'broken.png')]
    assert not report.written and not os.path.exists(f'{path}.parts')


def test_what_a_kill_left_of_another_model_is_encoded_anew(folder, tmp_path):
    model, path = extractor(), tmp_path / 'kept.safetensors'
    Stopping(model.image_encoder.backbone, 8)
    with pytest.raises(Interrupted):
        kept(model, folder, path)
    with torch.no_grad():
        model.image_encoder.backbone.conv.bias.add_(1)
    gallery, _, seen = kept(model, folder, path)
    assert seen == len(gallery) == 10


def test_parts_that_cannot_be_written_stay_in_memory(folder, tmp_path, monkeypatch):
    """The disk is full after the first part; what is kept already is used all the same."""
    model, path = extractor(), tmp_path / 'kept.safetensors'
    whole, *_ = kept(extractor_like(model), folder, tmp_path / 'whole.safetensors')
    real, calls = PartsFolder.write, []

    def write(self, encoded, keys):
        calls.append(len(keys))
        if len(calls) > 1:
            raise OSError(28, 'No space left on device')
        real(self, encoded, keys)
    monkeypatch.setattr(PartsFolder, 'write', write)
    monkeypatch.setattr(Gallery, 'save', lambda *args: write(None, None, []))
    gallery, report, seen = kept(model, folder, path)
    assert seen == 10 and report.written and calls == [4, 4, 0] and not path.exists()
    assert torch.equal(gallery.embeddings, whole.embeddings)
    assert list(gallery.ids) == list(whole.ids)
    monkeypatch.undo()
    _, _, seen = kept(model, folder, path)
    assert seen == 6 and path.exists()


def process(number, folder, out):
    dist.init_process_group('gloo', init_method=f'file://{out}/store', rank=number, world_size=2)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('retrieval'):
        model = extractor()
        for name in ('kept', 'file/no'):  # in parts, and where nothing can be written
            gallery, report, seen = kept(model, folder, out / f'{name}.safetensors')
            torch.save(dict(embeddings=gallery.embeddings, ids=list(gallery.ids), seen=seen,
                            new=report.new), out / f'{os.path.basename(name)}-{number}.pth')
            dist.barrier()
    leave_group()


def test_two_processes_keep_what_one_does(folder, tmp_path):
    torch.manual_seed(0)
    whole, *_ = kept(extractor(), folder, tmp_path / 'whole.safetensors')
    (tmp_path / 'file').write_text('')
    mp.spawn(process, args=(folder, tmp_path), nprocs=2)
    for name in ('kept', 'no'):
        found = [torch.load(tmp_path / f'{name}-{number}.pth') for number in range(2)]
        assert found[0]['seen'] + found[1]['seen'] == 10 and min(one['seen'] for one in found) > 3
        for one in found:
            assert torch.equal(one['embeddings'], whole.embeddings) and one['new'] == 10
            assert one['ids'] == list(whole.ids)
    assert torch.equal(Gallery.load(tmp_path / 'kept.safetensors').embeddings, whole.embeddings)
    assert not (tmp_path / 'kept.safetensors.parts').exists()


def test_wrong_comparison():
    with pytest.raises(ValueError, match='content, stat'):
        cached_gallery(extractor(), loader(Images(2)), 'x.safetensors', 'size')
