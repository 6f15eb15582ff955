import pytest
import torch
from pytorch_metric_learning import losses
from torch import nn

from retrieval.heads import MetricHead
from retrieval.heads.pml import build_component
from retrieval.heads.positives import needs_positives
from retrieval.structures import RetrievalDataSample

from .test_every_loss import LOSSES, OPTIONS

WITHOUT = {  # losses that a batch of different classes teaches something
    'ArcFaceLoss', 'CosFaceLoss', 'LargeMarginSoftmaxLoss', 'NormalizedSoftmaxLoss', 'P2SGradLoss',
    'ProxyAnchorLoss', 'ProxyNCALoss', 'SoftTripleLoss', 'SphereFaceLoss', 'SubCenterArcFaceLoss',
    'CrossBatchMemory', 'InstanceLoss', 'ManifoldLoss', 'SelfSupervisedLoss', 'VICRegLoss'}


def samples(labels):
    return [RetrievalDataSample().set_gt_label(label) for label in labels]


@pytest.mark.parametrize('name', LOSSES)
def test_which_losses_compare_samples_of_a_class(name):
    loss = build_component(dict(type=f'PML.{name}', **OPTIONS.get(name, {})))
    assert needs_positives(loss) == (name not in WITHOUT)


def test_a_loss_may_say_so_itself():
    class Own(nn.Module):
        needs_positives = True

        def forward(self, embeddings, labels):
            return embeddings.sum()

    assert needs_positives(Own()) and not needs_positives(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'own' compares"):
        MetricHead(Own()).loss(torch.rand(2, 4), samples([0, 1]))
    named = losses.MultipleLosses(dict(a=losses.ArcFaceLoss(3, 4), b=losses.NTXentLoss()))
    assert needs_positives(named)
    assert not needs_positives(losses.MultipleLosses([losses.ArcFaceLoss(3, 4)]))


@pytest.mark.parametrize('miner', [None, dict(type='BatchHardMiner'),
                                   dict(type='MultiSimilarityMiner')])
def test_a_batch_without_two_of_a_class(miner):
    head = MetricHead(dict(type='PML.TripletMarginLoss'), miner=miner)
    feats = torch.rand(12, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"'triplet_margin' compares.*12 classes.*\(0, 1, 2, 3, 4, "
                                         "5, 6, 7, 8, 9, …\\).*MPerClassSampler.*drop_last"):
        head.loss(feats, samples(range(12)))
    head.loss(feats, samples([0, *range(11)]))['loss'].backward()
    assert feats.grad.isfinite().all()


def test_batches_whose_positives_are_elsewhere():
    feats = torch.rand(3, 4)
    contrastive = MetricHead(dict(type='PML.ContrastiveLoss'))
    contrastive.loss([feats, feats.flip(1)], samples([0, 1, 2]))  # in the other view
    contrastive.loss(feats, samples([0, 1, 2]), ref_emb=torch.rand(2, 4),
                     ref_labels=torch.tensor([0, 1]))
    MetricHead(dict(type='PML.CrossBatchMemory', embedding_size=4,
                    loss=dict(type='ContrastiveLoss'))).loss(feats, samples([0, 1, 2]))
    MetricHead(dict(type='PML.TripletMarginLoss'),
               miner=dict(type='EmbeddingsAlreadyPackagedAsTriplets')).loss(
                   feats, samples([0, 1, 2]))
