import pytest
import torch
from mmengine.optim import OptimWrapper
from pytorch_metric_learning import losses
from torch import nn
from torch.nn import functional

from retrieval.datasets import ImageList, image_collate
from retrieval.registry import MODELS
from retrieval.retrievers import ProjectionMLP, SelfSupervisedRetriever
from retrieval.retrievers.self_supervised import instance_labels
from retrieval.structures import RetrievalDataSample

from ..datasets.photos import photo
from .toy import Encoder, loader


def retriever(loss='NTXentLoss', **kwargs):
    if isinstance(loss, str):
        loss = dict(type=f'PML.{loss}')
    return SelfSupervisedRetriever(**{
        'image_encoder': Encoder(), 'prototype': loader(),
        'head': dict(type='MetricHead', loss=loss), **kwargs})


def unlabelled(count=4, start=0):
    return [RetrievalDataSample(metainfo=dict(img_path=f'{start + i}.png')) for i in range(count)]


def views(count=4, number=2, size=4, seed=0):
    return list(torch.randn(number, count, 3, size, size,
                            generator=torch.Generator().manual_seed(seed)))


def nt_xent(first, second, temperature):
    """Chen et al. (2020), eq. 1: each of the 2 N views against all others, by a plain loop."""
    rows = functional.normalize(torch.cat([first, second]))
    count = len(first)
    total = 0
    for i in range(2 * count):
        similar = (rows @ rows[i] / temperature).tolist()
        others = torch.tensor([value for k, value in enumerate(similar) if k != i])
        total += (others.logsumexp(0) - similar[(i + count) % (2 * count)]).item()
    return total / (2 * count)


@pytest.mark.parametrize('name', ['NTXentLoss', 'SupConLoss'])
def test_it_is_simclr(name):
    model = retriever(dict(type=f'PML.{name}', temperature=0.5)).eval()
    given = views()
    value = model(given, unlabelled(), mode='loss')['loss']
    expected = nt_xent(*(model.image_encoder(view) for view in given), 0.5)
    assert value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('name', [
    'ContrastiveLoss', 'TripletMarginLoss', 'MultiSimilarityLoss', 'CircleLoss', 'NCALoss',
    'SignalToNoiseRatioContrastiveLoss', 'IntraPairVarianceLoss'])
def test_any_loss_of_pairs_takes_the_views_as_classes(name):
    torch.manual_seed(0)
    model = retriever(name).eval()
    given = views()
    value = model(given, unlabelled(), mode='loss')['loss']
    embeddings = torch.cat([model.image_encoder(view) for view in given])
    torch.testing.assert_close(value, getattr(losses, name)()(
        embeddings, torch.arange(4).repeat(2)))


def test_two_sets_of_views():
    model = retriever('VICRegLoss')
    given = views()
    value = model.eval()(given, unlabelled(), mode='loss')['loss']
    first, second = (model.image_encoder(view) for view in given)
    torch.testing.assert_close(value, losses.VICRegLoss()(first, ref_emb=second))


def test_labels_of_the_samples_are_not_looked_at():
    model = retriever().eval()
    with_labels = unlabelled()
    for sample in with_labels:
        sample.set_gt_label(0)
    assert model.loss(views(), with_labels) == model.loss(views(), unlabelled())
    assert with_labels[0].gt_label.tolist() == [0]


def test_only_training_goes_through_the_projector():
    model = retriever(projector=dict(hidden_features=6, out_features=3, in_features=5)).eval()
    assert isinstance(model.projector, ProjectionMLP)
    given = views()
    value = model.loss(given, unlabelled())['loss']
    rows = torch.cat([model.projector(model.image_encoder(view)) for view in given])
    torch.testing.assert_close(value, losses.NTXentLoss()(rows, torch.arange(4).repeat(2)))
    assert model(given[0], mode='tensor').shape == (4, 5)
    assert model.gallery.dim == 5 and len(model.predict(given[0])) == 4
    same = retriever(projector=dict(in_features=5))
    same.image_encoder.load_state_dict(model.image_encoder.state_dict())
    assert same.fingerprint() == model.fingerprint()


def test_the_projector_is_as_wide_as_the_encoder_says():
    encoder = Encoder(width=7)
    with pytest.raises(ValueError, match='Encoder does not say.*in_features'):
        retriever(image_encoder=encoder, projector=dict(out_features=3))
    encoder.embedding_size = 7
    model = retriever(image_encoder=encoder, projector=dict(num_layers=3, norm=False))
    assert [part.weight.shape for part in model.projector.layers if isinstance(part, nn.Linear)] \
        == [(512, 7), (512, 512), (128, 512)]
    with pytest.raises(ValueError, match='num_layers.*0'):
        ProjectionMLP(4, num_layers=0)


def test_views_of_several_sizes():
    """Views of one size pass together, and so share their batch statistics, as in SimCLR."""
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(12))
    model = retriever(image_encoder=encoder)
    large, small = views(), views(number=3, size=3)
    encoded = model.encode_views(large + small)
    assert [part.shape for part in encoded] == [(4, 12)] * 5
    together = encoder(torch.cat(large))
    assert torch.equal(torch.cat(encoded[:2]), together)
    assert model.loss(large + small, unlabelled())['loss'].isfinite()


def test_an_image_has_one_number_everywhere():
    names = instance_labels(unlabelled(1000), 1000)
    assert names.dtype == torch.int64 and len(names.unique()) == 1000 and int(names.min()) >= 0
    assert torch.equal(instance_labels(unlabelled(4, start=500), 4), names[500:504])
    by_row = [RetrievalDataSample(metainfo=dict(sample_idx=i, img_path='a.png')) for i in (3, 4, 3)]
    assert instance_labels(by_row, 3).tolist() == [3, 4, 3]


def test_from_an_unlabelled_folder_to_an_encoder_that_knows_its_views(tmp_path):
    from PIL import Image
    for seed in range(6):
        Image.fromarray(photo(24, 20, seed)).save(tmp_path / f'{seed}.png')
    pipeline = [dict(type='LoadImage'), dict(type='MultiView', num_views=2, transforms=[
        dict(type='RandomResizedCrop', scale=8, crop_ratio_range=(0.5, 1.0))]),
        dict(type='PackInputs')]
    images = ImageList(str(tmp_path), pipeline=pipeline)
    model = MODELS.build(dict(
        type='retrieval.SelfSupervisedRetriever', prototype=loader(),
        image_encoder=nn.Sequential(nn.Flatten(), nn.Linear(192, 8)),
        data_preprocessor=dict(mean=[127.5] * 3, std=[60.0] * 3),
        projector=dict(in_features=8, hidden_features=8, out_features=4, norm=False),
        head=dict(type='retrieval.MetricHead', loss=dict(type='PML.NTXentLoss', temperature=0.2))))
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.03))
    values = [model.train_step(image_collate([images[i] for i in range(6)]), wrapper)['loss']
              for _ in range(15)]
    assert sum(values[-3:]) < 0.8 * sum(values[:3])


@pytest.mark.parametrize('inputs, samples, says', [
    (views()[0], unlabelled(), 'MultiView'),
    (views(number=1), unlabelled(), 'MultiView'),
    (views(), None, 'no data samples'),
    (views(), unlabelled(3), '4 images and 3'),
    (views(), [RetrievalDataSample()] * 4, 'no sample_idx.*PackInputs'),
])
def test_bad_batches(inputs, samples, says):
    with pytest.raises(ValueError, match=says):
        retriever().loss(inputs, samples)


def test_bad_arguments():
    with pytest.raises(ValueError, match='no head.*NTXentLoss'):
        retriever(head=None).loss(views(), unlabelled())
    with pytest.raises(TypeError, match='projector must be'):
        retriever(projector=3)
