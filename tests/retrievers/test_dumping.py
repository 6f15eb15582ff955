import pytest
import torch
from torch.utils.data import SubsetRandomSampler

from retrieval.gallery import Gallery, GalleryStore
from retrieval.retrievers import ImageToImageRetriever, dump_in_parts
from retrieval.retrievers.dumping import identities

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
