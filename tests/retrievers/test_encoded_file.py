import numpy as np
import pytest
import torch
from torch.utils.data import SubsetRandomSampler

from retrieval.gallery import Fingerprint, FingerprintError, Gallery, GalleryStore
from retrieval.retrievers import ImageToImageRetriever, dump_in_parts
from retrieval.retrievers.encode import Encoded
from retrieval.retrievers.encoded_file import identities
from retrieval.retrievers.encoded_parts import PartsFolder, assemble, missing_rows, rows_of

from .toy import Encoder, Images, loader

MADE = Fingerprint('w', 'p', 't')
KEYS = [f'image{row}' for row in range(12)]
ROW_OF = {key: row for row, key in enumerate(KEYS)}


def made_folder(tmp_path):
    folder = PartsFolder(tmp_path / 'x.parts')
    folder.path.mkdir()
    return folder


def encoded(rows, labels=True, skipped=()):
    made = Encoded()
    made.rows, made.ids = list(rows), [KEYS[row] for row in rows]
    made.embeddings = [torch.tensor([[row, -row, 1.0]]) for row in rows]
    made.labels = [row % 3 if labels else None for row in rows]
    made.skipped = {KEYS[row]: 'cut' for row in skipped}
    return made


def write(folder, *parts, **kwargs):
    for rows in parts:
        folder.write(encoded(rows, **kwargs), [KEYS[row] for row in rows])


def test_parts_are_put_into_the_order_of_the_dataset(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [4, 5, 9], [0, 1, 2, 3], [11, 6], [6, 4])  # two of them twice
    assert rows_of(folder.parts(), ROW_OF).tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 11]
    whole = assemble(list(folder.parts()), ROW_OF)
    assert whole.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 11]
    assert whole.vectors.decoded()[:, 0].tolist() == whole.rows.tolist()
    assert list(whole.ids) == [KEYS[row] for row in whole.rows]
    assert whole.labels.tolist() == [row % 3 for row in whole.rows]
    assert missing_rows(whole, KEYS) == ['image7', 'image8', 'image10']


def test_images_that_could_not_be_read(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1], skipped=[2, 3])
    write(folder, [], skipped=[4])
    write(folder, [3])  # it could be read when it was tried again
    whole = assemble(list(folder.parts()), ROW_OF)
    assert whole.skipped == {'image2': 'cut', 'image4': 'cut'}
    assert whole.rows.tolist() == [0, 1, 3]
    assert missing_rows(whole, KEYS[:6]) == ['image5']


def test_a_dataset_that_changed(tmp_path):
    """Rows are known by their ids: images that left it are dropped, others move."""
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1, 2], [5, 6])
    row_of = {'image6': 0, 'new': 1, 'image1': 2, 'image5': 3}
    assert rows_of(folder.parts(), row_of).tolist() == [0, 2, 3]
    whole = assemble(list(folder.parts()), row_of)
    assert list(whole.ids) == ['image6', 'image1', 'image5'] and whole.rows.tolist() == [0, 2, 3]
    assert whole.vectors.decoded()[:, 0].tolist() == [6, 1, 5]


def test_labels_only_where_all_have_them(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    write(folder, [2], labels=False)
    assert assemble(list(folder.parts()), ROW_OF).labels is None
    with pytest.raises(ValueError, match='is empty'):
        assemble([], ROW_OF)


def test_damaged_and_unfinished_parts_count_as_not_encoded(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    first, = folder.path.glob('part-*')
    write(folder, [2, 3])
    data = bytearray(first.read_bytes())
    data[-300] ^= 1
    first.write_bytes(data)
    (folder.path / '.part-x.safetensors.123').write_bytes(b'half')
    (tmp_path / '.x.abcdefgh').write_bytes(b'half')
    (tmp_path / '.y.abcdefgh').write_bytes(b'of another file')
    folder.begin(MADE, True)
    assert rows_of(folder.parts(), ROW_OF).tolist() == [2, 3]
    assert not first.exists() and len(list(folder.path.iterdir())) == 2
    assert not (tmp_path / '.x.abcdefgh').exists() and (tmp_path / '.y.abcdefgh').exists()


def test_another_model_does_not_go_on(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    write(folder, [0, 1])
    with pytest.raises(FingerprintError, match=r"x\.parts.*weights and the test pipeline differ.*"
                       '--no-resume'):
        folder.begin(Fingerprint('W', 'p', 'T'), True)
    assert rows_of(folder.parts(), ROW_OF).tolist() == [0, 1]
    folder.begin(Fingerprint('W', 'p', 'T'), False)
    assert len(rows_of(folder.parts(), ROW_OF)) == 0
    (folder.path / 'dump.json').write_text('[')
    with pytest.raises(ValueError, match='damaged'):
        folder.begin(MADE, True)
    write(folder, [0])
    (folder.path / 'dump.json').unlink()  # a removal that did not come to its end
    folder.begin(MADE, True)
    assert len(rows_of(folder.parts(), ROW_OF)) == 0
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


def test_embeddings_that_are_not_finite(tmp_path):
    folder = made_folder(tmp_path)
    folder.begin(MADE, True)
    made = encoded([0, 1, 2])
    made.embeddings[1] = torch.tensor([[np.nan, 0, 0]])
    with pytest.raises(ValueError, match="'image1' is not finite.*0 more"):
        folder.write(made, KEYS[:3])


def test_two_dumps_do_not_write_into_one_folder(tmp_path):
    with PartsFolder(tmp_path / 'x.parts').locked(), \
            pytest.raises(TimeoutError, match=r"writing to .*x\.parts"), \
            PartsFolder(tmp_path / 'x.parts').locked():
        pass


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
