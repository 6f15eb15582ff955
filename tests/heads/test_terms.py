import pytest
import torch
from mmengine.optim import build_optim_wrapper
from pytorch_metric_learning import losses
from torch import nn
from torch.nn import functional

from retrieval.heads import ClassificationHead, MetricHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

SOFTMAX = dict(type='ClassificationHead', num_classes=4, in_features=6)
ANCHORS = dict(type='PML.ProxyAnchorLoss', num_classes=4, embedding_size=6)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def samples(labels=LABELS):
    return [RetrievalDataSample().set_gt_label(int(label)) for label in labels]


@pytest.fixture
def feats():
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_a_classifier_and_a_metric_loss_share_the_embeddings(feats):
    head = MODELS.build(dict(type='retrieval.MetricHead', loss_weight=0.5, loss=[
        dict(type='PML.TripletMarginLoss', margin=0.3, miner=dict(type='BatchHardMiner')),
        dict(SOFTMAX, loss_weight=3, label_smoothing=0.1)]))
    assert list(head.losses) == ['triplet_margin', 'classification']
    assert (head.num_classes, head.embedding_size) == (4, 6)
    out = head.loss(feats, samples())
    fc = head.losses['classification'].fc
    expected = functional.cross_entropy(fc(feats), LABELS, label_smoothing=0.1)
    torch.testing.assert_close(out['loss_classification'], 1.5 * expected)
    alone = MetricHead(dict(type='PML.TripletMarginLoss', margin=0.3),
                       miner=dict(type='BatchHardMiner')).loss(feats, samples())
    torch.testing.assert_close(out['loss_triplet_margin'], 0.5 * alone['loss'])
    assert out['mined_triplets_triplet_margin'] == 8
    sum(value for name, value in out.items() if 'loss' in name).backward()
    assert fc.weight.grad.abs().sum() > 0


def test_each_loss_has_its_own_miner(feats):
    head = MetricHead([
        dict(type='PML.TripletMarginLoss', miner=dict(type='BatchHardMiner')),
        dict(type='PML.ContrastiveLoss', miner=dict(type='PairMarginMiner')),
        dict(ANCHORS)])
    out = head.loss(feats, samples())
    assert set(head.miners) == {'triplet_margin', 'contrastive'}
    assert {name for name in out if 'mined' in name} == {
        'mined_triplets_triplet_margin', 'mined_positives_contrastive',
        'mined_negatives_contrastive'}


def test_a_classifier_keeps_the_weight_that_it_was_built_with(feats):
    classifier = ClassificationHead(4, 6, loss_weight=0.25)
    out = MetricHead([classifier, dict(ANCHORS)]).loss(feats, samples())
    torch.testing.assert_close(out['loss_classification'],
                               classifier.loss(feats, samples())['loss'])


def test_regularizers_of_embeddings_and_weights_are_added(feats):
    plain = MetricHead(ANCHORS)
    head = MetricHead(dict(
        ANCHORS, weight_regularizer=dict(type='PML.RegularFaceRegularizer'), weight_reg_weight=0.7,
        embedding_regularizer=dict(type='LpRegularizer', power=2), embedding_reg_weight=0.01))
    head.load_state_dict(plain.state_dict())
    added = (head.loss(feats, samples())['loss'] - plain.loss(feats, samples())['loss']).item()
    proxies = head.losses['proxy_anchor'].proxies
    nearest = [max(functional.cosine_similarity(proxies[a], proxies[b], dim=0).item()
                   for b in range(4) if a != b) for a in range(4)]
    lengths = [sum(value**2 for value in row) for row in feats.tolist()]
    expected = 0.7 * sum(nearest) / 4 + 0.01 * sum(lengths) / 8
    assert added == pytest.approx(expected, rel=1e-4)


class Model(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.encoder = nn.Linear(5, 6)
        self.head = MODELS.build(dict(type='retrieval.MetricHead', loss=head))


def test_proxies_and_class_weights_have_their_own_learning_rates():
    model = Model([ANCHORS, SOFTMAX, dict(type='PML.ArcFaceLoss', num_classes=4, embedding_size=6)])
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='SGD', lr=0.01, weight_decay=0.1),
        paramwise_cfg=dict(custom_keys={
            'head.losses.proxy_anchor': dict(lr_mult=100, decay_mult=0),
            'head.losses.classification': dict(lr_mult=10)})))
    settings = {id(weight): (round(group['lr'], 6), round(group['weight_decay'], 6))
                for group in wrapper.param_groups for weight in group['params']}
    found = {name: settings[id(weight)] for name, weight in model.named_parameters()}
    assert found == {
        'encoder.weight': (0.01, 0.1), 'encoder.bias': (0.01, 0.1),
        'head.losses.proxy_anchor.proxies': (1.0, 0),
        'head.losses.classification.fc.weight': (0.1, 0.1),
        'head.losses.classification.fc.bias': (0.1, 0.1),
        'head.losses.arc_face.W': (0.01, 0.1)}


def test_losses_of_two_views_want_no_classes(feats):
    views = [feats, feats.flip(1)]
    head = MetricHead(dict(type='PML.SelfSupervisedLoss', loss=dict(type='NTXentLoss')))
    torch.testing.assert_close(
        head.loss(views, None)['loss'],
        losses.NTXentLoss()(torch.cat(views), torch.arange(8).repeat(2)))
    vicreg = MetricHead(dict(type='PML.VICRegLoss'))
    torch.testing.assert_close(vicreg.loss(views, None)['loss'],
                               losses.VICRegLoss()(views[0], ref_emb=views[1]))
    with pytest.raises(ValueError, match='two views.*there are 1'):
        vicreg.loss(feats, None)


def test_a_batch_that_is_too_small_for_its_proxies(feats):
    head = MetricHead(dict(type='PML.ManifoldLoss', l=6, K=9))
    assert (head.num_classes, head.embedding_size) == (None, 6)
    with pytest.raises(ValueError, match='8 embeddings.*9 proxies'):
        head.loss(feats, None)


def test_a_dynamic_margin_is_saved(feats):
    torch.manual_seed(0)
    one, other = (MetricHead(dict(type='PML.DynamicSoftMarginLoss', momentum=0.5))
                  for _ in range(2))
    for batch in (feats, feats.flip(0, 1)):
        one.loss(batch, samples())['loss'].backward()
    other.load_state_dict(one.state_dict())
    assert one.losses['dynamic_soft_margin'].hist_.sum() > 0
    assert one.loss(feats, samples())['loss'] == other.loss(feats, samples())['loss']
