"""A set of images becomes a gallery: each image once, in the order of the dataset."""
import pytest
import torch
from torch import nn
from torch.utils.data import RandomSampler, Subset

from retrieval.retrievers import ImageToImageRetriever, encode
from retrieval.retrievers.encode import (
    Encoded,
    batches_of_rows,
    covers_its_dataset,
    evaluation_mode,
    label_names_of,
    metadata_of,
    numbered_batches,
    own_share,
    row_batches,
)
from retrieval.structures import RetrievalDataSample

from .toy import Encoder, Images, loader


def retriever(prototype=None, **kwargs):
    encoder = kwargs.pop('image_encoder', None) or Encoder()
    return ImageToImageRetriever(encoder, loader() if prototype is None else prototype,
                                 **kwargs).eval()


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not model.training and not model[0].training
        raise KeyError
    assert model.training and model[0].training and not model[1].training


def test_which_loaders_go_through_their_dataset_once():
    images = Images()
    for wanted, made in ((True, loader(images)), (True, loader(images, shuffle=True)),
                         (False, loader(images, sampler=[4, 1])),
                         (False, loader(images, batch_size=None))):
        assert covers_its_dataset(made) == wanted


def test_rows_are_shared_out_in_whole_batches(monkeypatch):
    made = loader(Images(8))
    assert row_batches(made) == [range(3), range(3, 6), range(6, 8)]
    shares = []
    for number in range(2):
        monkeypatch.setitem(row_batches.__globals__, 'shard',
                            lambda count, number=number: range(number, count, 2))
        shares.append(own_share(row_batches(made)))
        rows = [rows for rows, _ in numbered_batches(made)]
        assert rows == [list(one) for one in shares[-1]]
    assert shares == [[range(3), range(6, 8)], [range(3, 6)]]


def test_any_rows_in_any_batches():
    images = Images()
    found = list(batches_of_rows(loader(images), [[5, 0], [2]]))
    assert [rows for rows, _ in found] == [[5, 0], [2]]
    torch.testing.assert_close(torch.stack(found[0][1]['inputs']), images.images[[5, 0]])
    own = loader(images, sampler=[4, 1])
    assert [rows for rows, _ in numbered_batches(own)] == [None]


def test_what_is_encoded_so_far():
    encoded = Encoded()
    samples = [RetrievalDataSample(metainfo=dict(sample_id=name)) for name in 'ab']
    samples[0].set_gt_label(3)
    samples[1].set_gt_label([1, 2])  # several classes are no class
    encoded.add([5, 2], torch.eye(2).double(), samples)
    encoded.add([7], torch.ones(1, 2), [{}])
    assert (encoded.rows, encoded.ids, encoded.labels) == ([5, 2, 7], ['a', 'b', '7'],
                                                           [3, None, None])
    assert [part.dtype for part in encoded.embeddings] == [torch.float32] * 2
    with pytest.raises(ValueError, match="'8' is not finite .*1 more of its batch"):
        encoded.add([7, 8, 9], torch.tensor([[1.], [torch.nan], [torch.inf]]), [{}] * 3)
    assert len(encoded.rows) == 3


def test_names_and_columns_of_a_dataset():
    images = Images()
    assert label_names_of(images) == ['class 0', 'class 1', 'class 2']
    assert label_names_of([]) is None
    images.metainfo = dict(other=1)
    assert label_names_of(images) is None
    images.metadata = dict(camera=list('abcdefg'))
    assert metadata_of(images, torch.tensor([6, 0])) == dict(camera=['g', 'a'])
    assert metadata_of([], torch.tensor([0])) == {}


def test_columns_stand_beside_their_rows_and_only_where_these_are_known():
    images = Images()
    images.metadata = dict(number=list(range(7)))
    model = retriever()
    assert encode(model, loader(images)).metadata['number'].tolist() == list(range(7))
    assert dict(encode(model, loader(images, sampler=[4, 1])).metadata) == {}


def test_labels_only_where_every_sample_has_one():
    class Partly(Images):
        def __getitem__(self, row):
            item = super().__getitem__(row)
            if row == 3:
                del item['data_samples'].gt_label
            return item
    gallery = encode(retriever(), loader(Partly()))
    assert gallery.labels is None and gallery.label_names is None and len(gallery) == 7


@pytest.mark.parametrize('batch_size', [1, 2, 7, 100])
def test_rows_stand_in_the_order_of_the_dataset(batch_size):
    images = Images()
    shuffled = loader(images, batch_size, sampler=RandomSampler(images))
    model = retriever(shuffled)
    gallery = model.gallery
    assert list(gallery.ids) == [f'image{i}.png' for i in range(7)]
    with torch.no_grad():
        torch.testing.assert_close(gallery.embeddings, model.image_encoder(images.images))
    assert gallery.labels.tolist() == images.labels
    assert gallery.label_names == ['class 0', 'class 1', 'class 2']
    assert images.reads == [1] * 7


def test_a_loader_with_its_own_sampler_is_gone_through_as_it_is():
    images = Images()
    model = retriever(loader(images, sampler=[4, 1, 4, 6]))
    assert list(model.gallery.ids) == ['image1.png', 'image4.png', 'image6.png']


def test_a_subset_is_a_dataset():
    model = retriever(loader(Subset(Images(), [5, 2])))
    assert list(model.gallery.ids) == ['image5.png', 'image2.png']


def test_without_data_samples_rows_are_numbered():
    class Bare(Images):
        def __getitem__(self, row):
            return dict(inputs=self.images[row])

    def bare_collate(items):
        return dict(inputs=[item['inputs'] for item in items])
    prototype = loader(Bare())
    prototype.collate_fn = bare_collate
    assert list(retriever(prototype).gallery.ids) == [str(i) for i in range(7)]


def test_modes_of_every_submodule_are_put_back():
    model = retriever()
    model.train()
    model.image_encoder.linear.eval()
    before = {name: part.training for name, part in model.named_modules()}
    model.prepare_prototype()
    assert {name: part.training for name, part in model.named_modules()} == before
    embeddings = model.gallery.embeddings
    model.prepare_prototype()
    assert torch.equal(model.gallery.embeddings, embeddings), 'dropout was on'


def test_an_empty_prototype():
    class Empty(Images):
        def __len__(self):
            return 0
    with pytest.raises(ValueError, match='empty'):
        retriever(loader(Empty())).prepare_prototype()


def test_unreadable_images_are_left_out_and_listed():
    class Broken(Images):
        def __getitem__(self, row):
            if row not in (1, 4):
                return super().__getitem__(row)
            metainfo = dict(sample_idx=row, img_path=f'image{row}.png', unreadable='truncated')
            return dict(inputs=torch.zeros(0), data_samples=RetrievalDataSample(metainfo=metainfo))
    gallery = retriever(loader(Broken(), batch_size=2)).gallery
    assert list(gallery.ids) == [f'image{i}.png' for i in (0, 2, 3, 5, 6)]
    assert gallery.skipped == {'image1.png': 'truncated', 'image4.png': 'truncated'}
    assert gallery.labels.tolist() == [0, 2, 0, 2, 0]


def test_two_rows_of_one_picture_are_refused():
    class Twice(Images):
        def __getitem__(self, row):
            return super().__getitem__(0)
    with pytest.raises(ValueError, match=r"'image0\.png' occurs twice"):
        retriever(loader(Twice())).prepare_prototype()


class Unequal(Images):
    """Images of three sizes, mixed."""

    def __getitem__(self, row):
        item = super().__getitem__(row)
        height, width = ((4, 4), (2, 4), (4, 3))[row % 3]
        return {**item, 'inputs': item['inputs'][:, :height, :width]}


@pytest.mark.parametrize('batch_size', [1, 4, 9])
def test_an_image_is_encoded_alike_alone_and_beside_images_of_other_sizes(batch_size):
    class Mean(nn.Module):  # what a padding would change
        def forward(self, images):
            return images.mean((2, 3))

    images = Unequal(9)
    wanted = torch.stack([images[row]['inputs'].mean((1, 2)) for row in range(9)])
    model = retriever(loader(images, batch_size), image_encoder=Mean())
    model.prepare_prototype()
    torch.testing.assert_close(model.gallery.embeddings, wanted)

    for step in (model.test_step, model.val_step):
        found = [sample for batch in loader(images, batch_size) for sample in step(batch)]
        assert [sample.sample_idx for sample in found] == list(range(9))
        torch.testing.assert_close(torch.stack([sample.embedding for sample in found]), wanted)
