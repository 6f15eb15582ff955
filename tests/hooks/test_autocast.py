"""Training in mixed precision, by the optimiser wrappers that ``--amp`` chooses."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

CLASSES, EACH, STEPS = 6, 4, 500
LOSSES = dict(
    arcface=dict(type='PML.ArcFaceLoss', num_classes=CLASSES, embedding_size=16, margin=28.6,
                 scale=64),
    multi_similarity=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5),
    smooth_ap=dict(type='retrieval.SmoothAveragePrecisionLoss', temperature=0.01))


def retriever(loss):
    torch.manual_seed(0)
    encoder = dict(type='retrieval.ImageEncoder', projection=16, in_features=8, pooling=dict(
        type='retrieval.GeneralizedMeanPooling'), backbone=nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    return MODELS.build(dict(
        type='retrieval.ImageToImageRetriever', image_encoder=encoder, prototype=torch.zeros(1, 16),
        head=dict(type='retrieval.MetricHead', loss=loss)))


def batch(generator):
    """Noise over the pattern of a class."""
    patterns = torch.randn(CLASSES, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    images = patterns[labels] + 0.5 * torch.randn(len(labels), 1, 6, 6, generator=generator)
    samples = [RetrievalDataSample(metainfo=dict(sample_idx=row)).set_gt_label(int(label))
               for row, label in enumerate(labels)]
    return dict(inputs=list(images), data_samples=samples)


def train(model, wrapper):
    """The loss of every step, in float32."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    losses = []
    for _ in range(STEPS):
        losses.append(model.train_step(batch(generator), wrapper)['loss'].item())
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert torch.isfinite(torch.tensor(losses)).all()
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('loss', list(LOSSES))
def test_bfloat16_on_a_cpu_trains_for_five_hundred_steps(loss):
    model = retriever(LOSSES[loss])
    seen = []
    model.image_encoder.backbone[0].register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype))
    wrapper = build_optim_wrapper(model, dict(
        type='retrieval.AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=2e-3)))
    losses = train(model, wrapper)
    assert set(seen) == {torch.bfloat16}
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


@pytest.mark.gpu
@pytest.mark.parametrize('loss', list(LOSSES))
def test_float16_on_a_gpu_trains_for_five_hundred_steps(loss):
    if not torch.cuda.is_available():
        pytest.skip('needs CUDA')
    model = retriever(LOSSES[loss]).cuda()
    wrapper = build_optim_wrapper(model, dict(
        type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='AdamW', lr=2e-3)))
    losses = train(model, wrapper)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
