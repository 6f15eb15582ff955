import pytest
import torch
from pytorch_metric_learning import losses

from retrieval.heads import MetricHead, PairedViewLoss
from retrieval.structures import RetrievalDataSample

VICREG = dict(type='retrieval.PairedViewLoss', loss=dict(type='PML.VICRegLoss'))


def samples(labels):
    return [RetrievalDataSample().set_gt_label(label) for label in labels]


def vicreg(first, second):
    """Bardes et al. (2022), eq. 1 to 6, with weights 25, 25 and 1, by loops over the columns."""
    count, width = first.shape
    value = 25 * ((first - second) ** 2).sum(1).mean() / width
    for view in (first, second):
        spread = [max(0.0, 1 - (view[:, j].var().item() + 1e-4) ** 0.5) for j in range(width)]
        value = value + 25 * sum(spread) / width / 2
        centred = view - view.mean(0)
        for i in range(width):
            for j in range(width):
                if i != j:
                    value = value + ((centred[:, i] * centred[:, j]).sum()
                                     / (count - 1)) ** 2 / width
    return value.item()


def test_the_two_views_of_each_sample_are_compared():
    views = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    labels = [5, 2**60, 3, 1, 0, 2**60 + 1]
    value = MetricHead(VICREG).loss(list(views), samples(labels))['loss']
    assert value.item() == pytest.approx(vicreg(*views), rel=1e-4)
    # in any order of the samples, as when several processes' are put together
    order = torch.cat([torch.randperm(6), 6 + torch.randperm(6)])
    value = PairedViewLoss(losses.VICRegLoss())(
        views.reshape(12, 4)[order], torch.tensor(labels * 2)[order])
    torch.testing.assert_close(value, losses.VICRegLoss()(views[0], ref_emb=views[1]))


def test_an_image_that_a_sampler_repeats_has_four_views():
    views = torch.randn(2, 3, 4)
    value = PairedViewLoss(losses.VICRegLoss())(views.reshape(6, 4), torch.tensor([1, 0, 1] * 2))
    assert value.isfinite()


def test_what_it_refuses():
    with pytest.raises(ValueError, match='two views'):
        MetricHead(VICREG).loss(torch.rand(4, 3), samples([0, 1, 2, 3]))
    with pytest.raises(ValueError, match='two views'):
        MetricHead(VICREG).loss(list(torch.rand(3, 3, 3)), samples([0, 1, 2]))
    with pytest.raises(TypeError, match='got str'):
        PairedViewLoss('VICRegLoss')
    with pytest.raises(ValueError, match='CrossEntropyLoss takes no ref_emb'):
        PairedViewLoss(torch.nn.CrossEntropyLoss())
