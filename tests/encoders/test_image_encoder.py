import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from retrieval.encoders import (
    GlobalMaxPooling,
    ImageEncoder,
    MultiScale,
    MultiScaleEncoder,
    Projection,
    WhiteningFit,
)
from retrieval.registry import MODELS


def backbone(width=6):
    module = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
    module.num_features = width
    return module


class TupleBackbone(nn.Module):
    """Returns all its stages, as mmpretrain's backbones do."""

    feat_dim = 5

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)])

    def forward(self, images):
        first = self.stages[0](images)
        return first, self.stages[1](first)


def test_embeddings_are_pooled_projected_and_of_length_one():
    encoder = ImageEncoder(nn.Sequential(backbone()), projection=4, in_features=6).eval()
    images = torch.rand(3, 3, 9, 9)
    out = encoder(images)
    assert out.shape == (3, 4) and out.dtype == torch.float32 and encoder.embedding_size == 4

    pooled = encoder.backbone(images).detach().flatten(2).sum(2) / 16
    linear = encoder.projection.linear.requires_grad_(False)
    for row, features in zip(out, pooled, strict=True):
        projected = [bias + sum(float(w) * float(f) for w, f in zip(weights, features, strict=True))
                     for weights, bias in zip(linear.weight, linear.bias.tolist(), strict=True)]
        length = sum(value ** 2 for value in projected) ** 0.5
        torch.testing.assert_close(row, torch.tensor([value / length for value in projected]))


def test_without_norm_and_projection():
    encoder = ImageEncoder(backbone(), pooling=GlobalMaxPooling(), normalize=False).eval()
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(encoder(images), encoder.backbone(images).amax((2, 3)))
    assert encoder.embedding_size == 6


def test_the_last_of_a_tuple_counts():
    encoder = ImageEncoder(TupleBackbone(), normalize=False, projection=None)
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(encoder(images), encoder.backbone(images)[-1].mean((2, 3)))
    assert encoder.embedding_size == 5

    class Pooled(TupleBackbone):
        def forward(self, images):
            return tuple(stage.mean((2, 3)) for stage in super().forward(images))

    encoder = ImageEncoder(Pooled(), pooling=None, normalize=False)
    assert torch.equal(encoder(images), encoder.backbone(images)[-1])


def test_a_batch_norm_neck():
    encoder = ImageEncoder(backbone(), projection=dict(out_features=4, bias=False, norm=True))
    assert isinstance(encoder.projection.norm, nn.BatchNorm1d)
    assert encoder.projection.linear.bias is None
    only = ImageEncoder(backbone(), projection=dict(norm=True), normalize=False)
    assert only.embedding_size == 6 and not list(only.projection.linear.parameters())
    out = only(torch.rand(8, 3, 9, 9))
    torch.testing.assert_close(out.mean(0), torch.zeros(6), atol=1e-5, rtol=0)


def test_other_parts_are_built_by_name():
    encoder = MODELS.build(dict(
        type='retrieval.ImageEncoder',
        backbone=[dict(type='TimmBackbone', model_name='test_resnet')],
        pooling=dict(type='GeM', p=4.0, p_trainable=False),
        projection=dict(type='retrieval.Projection', out_features=3)))
    assert encoder.embedding_size == 3 and encoder.pooling.p.item() == 4
    assert encoder(torch.rand(2, 3, 64, 64)).norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_frozen_backbone_gets_no_gradient_and_keeps_its_statistics():
    encoder = ImageEncoder(backbone(), projection=4, frozen=True).train()
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    encoder(torch.rand(4, 3, 9, 9)).sum().backward()
    assert all(p.grad is None for p in encoder.backbone.parameters())
    assert encoder.projection.linear.weight.grad is not None
    for name, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert encoder.training and not encoder.backbone.training

    encoder.freeze(False)
    assert encoder.backbone.training and all(p.requires_grad for p in encoder.parameters())


def test_an_encoder_leaves_the_modes_that_it_was_given():
    given = backbone().eval()
    given[0].weight.requires_grad = False
    ImageEncoder(given)
    assert not given.training and not given[0].weight.requires_grad


def test_autocast_gives_float32_embeddings_of_length_one():
    encoder = ImageEncoder(backbone(), projection=32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = encoder(torch.rand(4, 3, 9, 9))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(4))


def test_weights_survive_saving():
    options = dict(backbone=dict(type='TimmBackbone', model_name='test_resnet'),
                   pooling=dict(type='GeM'), projection=dict(out_features=4, norm=True))
    first, second = ImageEncoder(**options), ImageEncoder(**options)
    with torch.no_grad():
        first.pooling.p.fill_(2.5)
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(first.eval()(images), second.eval()(images))


def test_a_hidden_layer_stands_before_the_linear_one():
    projection = Projection(5, 3, hidden_features=4).eval()
    features = torch.randn(6, 5)
    first, norm, _ = projection.hidden
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(4))
        hidden = (features @ first.weight.T - norm.running_mean) / (1 + norm.eps) ** 0.5
        expected = hidden.clamp(min=0) @ projection.linear.weight.T + projection.linear.bias
    torch.testing.assert_close(projection(features), expected)
    assert list(Projection(5, 3).state_dict()) == ['linear.weight', 'linear.bias']


def test_an_encoder_that_ends_early_shares_the_modules():
    encoder = ImageEncoder(backbone(), projection=4, whitening=2, multi_scale=(1, 0.5)).eval()
    encoder.whitening.set(WhiteningFit(np.zeros(4), np.eye(2, 4)))
    images = torch.rand(2, 3, 9, 9)
    pooled = encoder.up_to('pooling')
    torch.testing.assert_close(pooled(images), encoder.backbone(images).mean((2, 3)))
    assert pooled.backbone is encoder.backbone and pooled.embedding_size == 6
    described = encoder.up_to('projection')(images)
    torch.testing.assert_close(described, encoder.describe(images))
    torch.testing.assert_close(encoder(images), nn.functional.normalize(described[:, :2]))
    with pytest.raises(ValueError, match='up_to|part'):
        encoder.up_to('whitening')


@pytest.mark.parametrize('options, error, says', [
    (dict(backbone=backbone(), projection=dict(norm=True, hidden_features=3)), ValueError,
     'out_features'),
    (dict(backbone=backbone(), whitening=7), ValueError, 'at most in_features'),
    (dict(backbone=backbone(), whitening=True), TypeError, 'bool'),
    (dict(backbone=nn.Conv2d(3, 4, 3), whitening=8), ValueError, 'in_features'),
    (dict(backbone=backbone(), multi_scale=2), TypeError, 'scales'),
    (dict(backbone=backbone(), multi_scale=dict(scales=())), ValueError, 'at least one'),
    (dict(backbone=None), TypeError, 'backbone'),
    (dict(backbone=nn.Conv2d(3, 4, 3), projection=8), ValueError, 'in_features'),
    (dict(backbone=backbone(), projection=0), ValueError, 'out_features'),
    (dict(backbone=backbone(), projection='8'), TypeError, 'str'),
    (dict(backbone=backbone(), projection=True), TypeError, 'bool'),
    (dict(backbone=backbone(), projection=dict()), ValueError, 'norm=True'),
    (dict(backbone=backbone(), pooling=dict(type='GEMM')), ValueError, "'GeM'"),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        ImageEncoder(**options)


def test_an_unknown_width_is_only_needed_for_a_projection():
    encoder = ImageEncoder(nn.Conv2d(3, 4, 3))
    assert encoder.embedding_size is None and encoder(torch.rand(1, 3, 5, 5)).shape == (1, 4)


@pytest.mark.parametrize('images, error, says', [
    (torch.zeros(2, 3, 9, 9, dtype=torch.uint8), TypeError, 'uint8'),
    ([torch.rand(3, 9, 9)], TypeError, 'list'),
    (torch.rand(3, 9, 9), ValueError, r'\(3, 9, 9\)'),
])
def test_bad_images(images, error, says):
    with pytest.raises(error, match=says):
        ImageEncoder(backbone())(images)


def test_features_that_nobody_pooled():
    with pytest.raises(ValueError, match='not pooled'):
        ImageEncoder(backbone(), pooling=None)(torch.rand(1, 3, 9, 9))


def test_projection_alone():
    with pytest.raises(ValueError, match='in_features'):
        Projection(0, 4)


def test_importing_encoders_and_heads_imports_no_model_library():
    code = ('import sys, retrieval.encoders, retrieval.heads; '
            'print([m for m in ("timm", "torchvision", "pytorch_metric_learning") '
            'if m in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_a_whole_encoder_from_a_file(tmp_path):
    def build(width=4, **options):
        return MODELS.build(dict(
            type='ImageEncoder', projection=width, **options,
            backbone=dict(type='TimmBackbone', model_name='test_resnet')))

    source = build()
    torch.save({f'image_encoder.{name}': value for name, value in source.state_dict().items()}
               | {'head.weight': torch.zeros(3)}, tmp_path / 'a.pth')
    encoder = build(checkpoint=str(tmp_path / 'a.pth'))
    encoder.init_weights()
    assert all(torch.equal(value, encoder.state_dict()[name])
               for name, value in source.state_dict().items())
    with pytest.raises(ValueError, match='Likely cause: another width of the projection'):
        build(width=5, checkpoint=str(tmp_path / 'a.pth'))
    torch.save(source.backbone.model.state_dict(), tmp_path / 'b.pth')
    with pytest.raises(ValueError, match="weights of 'backbone.model' alone"):
        build(checkpoint=str(tmp_path / 'b.pth'))
    partly = build(checkpoint=dict(path=str(tmp_path / 'b.pth'), strict=False,
                                   key_mapping={'^': 'backbone.model.'}))
    assert torch.equal(partly.backbone.model.conv1[0].weight,
                       source.backbone.model.conv1[0].weight)


@pytest.mark.parametrize('name, widths, expected', [
    ('num_features', [8, 16], 16), ('channels', (4, 8), 8), ('embed_dims', 12, 12)])
def test_backbones_that_list_the_width_of_each_stage(name, widths, expected):
    backbone = nn.Identity()
    setattr(backbone, name, widths)
    assert ImageEncoder(backbone).embedding_size == expected


def scales_backbone():
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())


def encoder(**options):
    torch.manual_seed(1)
    return ImageEncoder(scales_backbone(), projection=4, in_features=6, **options).eval()


def plain_views(images, scales, flip):
    for scale in scales:
        view = functional.interpolate(images, scale_factor=scale, mode='bilinear')
        yield view
        if flip:
            yield torch.flip(view, [-1])


@pytest.mark.parametrize('flip', [False, True])
def test_the_mean_of_normalised_embeddings_is_whitened_last(flip):
    scales, images = (1, 2 ** -0.5, 1.4), torch.rand(2, 3, 12, 10)
    plain = encoder()
    expected = sum(plain(view) for view in plain_views(images, scales, flip))
    expected = functional.normalize(expected)
    several = encoder(multi_scale=dict(scales=scales, flip=flip), whitening=3)
    torch.testing.assert_close(several(images), expected)  # whitening is not fitted yet

    mean, rows = torch.randn(4).double().numpy(), torch.randn(3, 4).double().numpy()
    several.whitening.set(WhiteningFit(mean, rows))
    whitened = (expected - torch.tensor(mean).float()) @ torch.tensor(rows).float().T
    torch.testing.assert_close(several(images), functional.normalize(whitened))


def test_training_sees_one_size_and_names_of_weights_stay():
    images = torch.rand(2, 3, 12, 12)
    plain, several = encoder(), encoder(multi_scale=(1, 0.5))
    assert list(plain.state_dict()) == list(several.state_dict())
    several.train()
    torch.testing.assert_close(several(images), plain(images))


def test_joining_equals_loops():
    embeddings = torch.randn(3, 2, 4)
    gem, top, mean = torch.empty(2, 4), torch.empty(2, 4), torch.empty(2, 4)
    for b in range(2):
        lowest = min(0., min(embeddings[v, b, d].item() for v in range(3) for d in range(4)))
        for d in range(4):
            values = [embeddings[v, b, d].item() for v in range(3)]
            mean[b, d], top[b, d] = sum(values) / 3, max(values)
            gem[b, d] = (sum((v - lowest) ** 2.5 for v in values) / 3) ** 0.4 + lowest
    assert torch.allclose(MultiScale(aggregate='mean').join(embeddings), mean)
    assert torch.equal(MultiScale(aggregate='max').join(embeddings), top)
    torch.testing.assert_close(MultiScale(aggregate='gem', p=2.5).join(embeddings), gem)
    positive = embeddings.abs()  # where nothing is negative: the generalised mean as published
    torch.testing.assert_close(MultiScale(aggregate='gem', p=2.5).join(positive),
                               positive.pow(2.5).mean(0).pow(1 / 2.5))


def test_other_encoders_are_wrapped():
    conv = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    wrapped = MODELS.build(dict(type='retrieval.MultiScaleEncoder', encoder=conv,
                                scales=(1, 0.5), flip=True)).eval()
    images = torch.rand(2, 3, 8, 8)
    expected = sum(functional.normalize(conv(view))
                   for view in plain_views(images, (1, 0.5), True))
    torch.testing.assert_close(wrapped(images), functional.normalize(expected))
    assert torch.equal(wrapped.train()(images), conv(images))
    with pytest.raises(ValueError, match='multi_scale='):
        MultiScaleEncoder(encoder())


@pytest.mark.parametrize('options, says', [
    (dict(scales=[0.5, 0]), 'above 0'),
    (dict(aggregate='median'), "'mean'"),
    (dict(aggregate='gem', p=0), 'power'),
])
def test_scales_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        MultiScale(**options)


def test_images_that_vanish():
    with pytest.raises(ValueError, match='no pixel left'):
        MultiScale((1, 0.1))(lambda view: view.flatten(1), torch.rand(1, 3, 8, 8))
