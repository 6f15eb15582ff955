import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from pytorch_metric_learning import losses
from torch import nn

from retrieval.heads import MetricHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

ARCFACE = dict(type='PML.ArcFaceLoss', num_classes=4, embedding_size=6)


def samples(labels):
    return [RetrievalDataSample(metainfo=dict(sample_id=f'photo-{row}')).set_gt_label(label)
            for row, label in enumerate(labels)]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 6, generator=generator), [0, 0, 1, 1, 2, 2, 3, 3]


def arcface(embeddings, labels, weights, margin=28.6, scale=64.0):
    """The mean over rows of the cross entropy of Deng et al. (2019), eq. 3, as a plain loop."""
    total = 0.0
    classes = weights.shape[1]
    for row, label in zip(embeddings.tolist(), labels, strict=True):
        logits = []
        for c in range(classes):
            column = weights[:, c].tolist()
            dot = sum(a * b for a, b in zip(row, column, strict=True))
            cosine = dot / math.sqrt(sum(a * a for a in row) * sum(b * b for b in column))
            angle = math.acos(cosine)
            if c == label:
                shift = math.radians(margin)
                cosine = (math.cos(angle + shift) if angle <= math.pi - shift
                          else cosine - shift * math.sin(shift))
            logits.append(scale * cosine)
        top = max(logits)
        total += top + math.log(sum(math.exp(value - top) for value in logits)) - logits[label]
    return total / len(labels)


def test_arcface_by_name_is_the_formula(batch):
    embeddings, labels = batch
    head = MODELS.build(dict(type='retrieval.MetricHead', loss=ARCFACE, loss_weight=0.5))
    out = head.loss(embeddings, samples(labels))
    assert list(out) == ['loss'] and out['loss'].dtype == torch.float32
    weights = head.losses['arc_face'].W.detach()
    assert out['loss'].item() == pytest.approx(0.5 * arcface(embeddings, labels, weights), rel=1e-4)


def triplets(embeddings, labels, margin):
    """Every triplet, its loss a hinge on Euclidean distances between unit vectors; the mean over
    those above zero."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    found = []
    for a in range(len(labels)):
        for p in range(len(labels)):
            for n in range(len(labels)):
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    positive = (unit[a] - unit[p]).norm().item()
                    negative = (unit[a] - unit[n]).norm().item()
                    found.append(positive - negative + margin)
    active = [value for value in found if value > 0]
    return sum(active) / len(active), len(active)


def test_a_miner_chooses_what_the_loss_sees(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='TripletMarginLoss', margin=0.1),
                      miner=dict(type='PML.TripletMarginMiner', margin=0.1))
    out = head.loss(embeddings, samples(labels))
    value, count = triplets(embeddings, labels, 0.1)
    assert out['loss'].item() == pytest.approx(value, rel=1e-4)
    assert out['mined_triplets'].item() == count
    hard = MetricHead(dict(type='TripletMarginLoss', margin=0.1),
                      miner=dict(type='PML.BatchHardMiner')).loss(embeddings, samples(labels))
    assert hard['mined_triplets'].item() == 8 and hard['loss'] > out['loss']


def test_several_losses_are_weighted_and_named(batch):
    embeddings, labels = batch
    torch.manual_seed(0)
    head = MetricHead([
        dict(**ARCFACE, loss_weight=0.5),
        dict(type='PML.MultiSimilarityLoss', miner=dict(type='MultiSimilarityMiner')),
        dict(type='PML.ContrastiveLoss', name='pairs')], loss_weight=2.0)
    out = head.loss(embeddings, samples(labels))
    assert [key for key in out if 'loss' in key] == [
        'loss_arc_face', 'loss_multi_similarity', 'loss_pairs']
    assert {key for key in out if 'loss' not in key} == {
        'mined_positives_multi_similarity', 'mined_negatives_multi_similarity'}
    arc_face = losses.ArcFaceLoss(4, 6)
    arc_face.W = head.losses['arc_face'].W
    target = torch.tensor(labels)
    torch.testing.assert_close(out['loss_arc_face'], arc_face(embeddings, target))
    torch.testing.assert_close(out['loss_pairs'], 2 * losses.ContrastiveLoss()(embeddings, target))


def test_the_memory_mines_for_itself(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.CrossBatchMemory', embedding_size=6, memory_size=16,
                           loss=dict(type='ContrastiveLoss'),
                           miner=dict(type='MultiSimilarityMiner')))
    assert not len(head.miners) and head.losses['cross_batch_memory'].miner is not None
    head.loss(embeddings, samples(labels))
    torch.testing.assert_close(head.state_dict()['losses.cross_batch_memory.embedding_memory'][:8],
                               embeddings)
    with pytest.raises(ValueError, match='memory_size=16'):
        head.loss(embeddings.repeat(3, 1), samples(labels * 3))


class Model(BaseModel):
    def __init__(self, head):
        super().__init__()
        self.encoder = nn.Linear(5, 6)
        self.head = MODELS.build(head)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return self.head.loss(self.encoder(inputs), data_samples)


def test_a_training_step_moves_the_proxies_and_they_are_saved(batch):
    _, labels = batch
    model = Model(dict(type='MetricHead', loss=ARCFACE))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    inputs = torch.rand(8, 5)
    first = model.train_step(dict(inputs=inputs, data_samples=samples(labels)), optimizer)
    for _ in range(30):
        last = model.train_step(dict(inputs=inputs, data_samples=samples(labels)), optimizer)
    assert last['loss'] < 0.8 * first['loss']
    for name in ('head.losses.arc_face.W', 'encoder.weight'):
        assert not torch.equal(model.state_dict()[name], before[name])

    again = Model(dict(type='MetricHead', loss=ARCFACE))
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(inputs, samples(labels))['loss'],
                               model(inputs, samples(labels))['loss'])


def test_the_head_may_have_its_own_learning_rate():
    model = Model(dict(type='MetricHead', loss=ARCFACE))
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1),
        paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10)))))
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    assert rates[id(model.head.losses['arc_face'].W)] == pytest.approx(1.0)
    assert rates[id(model.encoder.weight)] == pytest.approx(0.1)


def test_losses_are_float32_under_autocast(batch):
    embeddings, labels = batch
    head = MetricHead([ARCFACE, dict(type='PML.NTXentLoss')])
    half = embeddings.bfloat16().requires_grad_()
    expected = head.loss(half.detach().float(), samples(labels))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head.loss(half, samples(labels))
    for name, value in out.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name])
    sum(out.values()).backward()
    assert half.grad is not None and head.losses['arc_face'].W.dtype == torch.float32


def test_of_a_tuple_the_last_counts_and_a_list_holds_views(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.NTXentLoss'))
    expected = head.loss(embeddings, samples(labels))['loss']
    assert head.loss((torch.rand(8, 3, 2, 2), embeddings), samples(labels))['loss'] == expected

    views = [embeddings, embeddings.flip(1)]
    both = head.loss(views, samples(labels))['loss']
    torch.testing.assert_close(both, losses.NTXentLoss()(torch.cat(views),
                                                         torch.tensor(labels * 2)))


def test_labels_that_float32_cannot_tell_apart(batch):
    embeddings, _ = batch
    large = [2**24, 2**24, 2**24 + 1, 2**24 + 1] * 2
    small = [0, 0, 1, 1] * 2
    head = MetricHead(dict(type='PML.ContrastiveLoss'))
    assert (head.loss(embeddings, samples(large))['loss']
            == head.loss(embeddings, samples(small))['loss'])


def test_a_loss_that_is_not_finite_is_not_hidden(batch):
    embeddings, labels = batch
    embeddings[0, 0] = float('nan')
    assert MetricHead(ARCFACE).loss(embeddings, samples(labels))['loss'].isnan()


def test_modules_are_taken_as_they_are(batch):
    embeddings, labels = batch

    class Spread(nn.Module):
        def forward(self, embeddings, labels):
            return embeddings.var() + 0 * labels.sum()

    own = Spread()
    head = MetricHead(own)
    assert head.losses['spread'] is own
    torch.testing.assert_close(head.loss(embeddings, samples(labels))['loss'], embeddings.var())


@pytest.mark.parametrize('loss, classes, width', [
    (ARCFACE, 4, 6),
    (dict(type='PML.SubCenterArcFaceLoss', num_classes=4, embedding_size=6), 4, 6),
    (dict(type='PML.ProxyAnchorLoss', num_classes=4, embedding_size=6), 4, 6),
    (dict(type='PML.ProxyNCALoss', num_classes=4, embedding_size=6), 4, 6),
    (dict(type='PML.SoftTripleLoss', num_classes=4, embedding_size=6), 4, 6),
    (dict(type='PML.NormalizedSoftmaxLoss', num_classes=4, embedding_size=6), 4, 6),
    (dict(type='PML.P2SGradLoss', num_classes=4, descriptors_dim=6), 4, 6),
    (dict(type='PML.MarginLoss', num_classes=4, learn_beta=True), 4, None),
    (dict(type='PML.MarginLoss'), None, None),
    (dict(type='PML.MultiSimilarityLoss'), None, None),
    (dict(type='PML.CrossBatchMemory', embedding_size=6, loss=dict(type='NTXentLoss')), None, 6),
    ([dict(type='PML.NTXentLoss'), ARCFACE], 4, 6),
])
def test_classes_and_widths_that_a_loss_has_no_weights_for(batch, loss, classes, width):
    embeddings, labels = batch
    head = MetricHead(loss)
    assert (head.num_classes, head.embedding_size) == (classes, width)
    assert all(value.isfinite() for value in head.loss(embeddings, samples(labels)).values())
    wrong = labels[:-1] + [4]
    if classes is not None:
        with pytest.raises(ValueError, match="'photo-7' is 4.*num_classes=4.*from 0 to 3"):
            head.loss(embeddings, samples(wrong))
    else:
        head.loss(embeddings, samples(wrong))
    if width is not None:
        with pytest.raises(ValueError, match='embedding_size=6.*width 5'):
            head.loss(embeddings[:, :5], samples(labels))
    with pytest.raises(ValueError, match="'photo-0' is -1.*from 0"):
        head.loss(embeddings, samples([-1] + labels[1:]))


def test_samples_that_a_metric_loss_cannot_use(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.NTXentLoss'))
    unlabelled = samples(labels)
    unlabelled[5] = RetrievalDataSample(metainfo=dict(sample_id='photo-5'))
    with pytest.raises(ValueError, match="'photo-5' has no gt_label"):
        head.loss(embeddings, unlabelled)
    several = samples(labels)
    several[3].set_gt_label([1, 2])
    with pytest.raises(ValueError, match="'photo-3' has 2 classes"):
        head.loss(embeddings, several)
    mixed = samples(labels)
    mixed[0].set_gt_score([0.3, 0.7])
    with pytest.raises(ValueError, match='ClassificationHead'):
        head.loss(embeddings, mixed)
    with pytest.raises(ValueError, match='8 embeddings and 7 data samples'):
        head.loss(embeddings, samples(labels[:-1]))
    with pytest.raises(ValueError, match='no data samples'):
        head.loss(embeddings, None)


@pytest.mark.parametrize('feats, says', [
    (torch.rand(8, 6, 2, 2), 'pool'),
    ((torch.rand(8, 6), torch.rand(8, 6, 2, 2)), 'pool'),
    ([torch.rand(8, 6), torch.rand(8, 5)], 'one shape'),
    ([], 'one shape'),
    ('feats', 'str'),
])
def test_feats_that_are_no_embeddings(batch, feats, says):
    with pytest.raises(ValueError, match=says):
        MetricHead(ARCFACE).loss(feats, samples(batch[1]))


@pytest.mark.parametrize('options, error, says', [
    (dict(loss=[]), ValueError, 'empty'),
    (dict(loss=dict(margin=1)), ValueError, 'no type'),
    (dict(loss='PML.ArcFaceLoss'), TypeError, 'str'),
    (dict(loss=dict(type='PML.ArcFace')), ValueError, "'ArcFaceLoss'"),
    (dict(loss=dict(type='ArcFace')), ValueError, "'ArcFaceLoss'"),
    (dict(loss=ARCFACE, miner=dict(kind=1)), ValueError, 'miner has no type'),
    (dict(loss=dict(type='PML.CosineSimilarity')), ValueError, 'query_emb, ref_emb'),
    (dict(loss=[ARCFACE], miner=dict(type='BatchHardMiner')), ValueError, 'write each miner'),
    (dict(loss=[ARCFACE, ARCFACE]), ValueError, "called 'arc_face'.*name="),
    (dict(loss=[ARCFACE, {**ARCFACE, 'embedding_size': 5, 'name': 'b'}]), ValueError, 'widths'),
    (dict(loss=dict(type='PML.PNPLoss'), miner=dict(type='BatchHardMiner')), ValueError,
     'PNPLoss takes no indices.*BatchHardMiner'),
    (dict(loss=[dict(type='ClassificationHead', num_classes=4, in_features=6,
                     miner=dict(type='BatchHardMiner'))]), ValueError, 'takes no indices'),
    (dict(loss=dict(type='ClassificationHead', num_classes=4)), TypeError, 'in_features'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        MetricHead(**options)


def test_the_head_has_nothing_to_predict(batch):
    head = MetricHead(ARCFACE)
    assert head.predict(batch[0], samples(batch[1])) is None
    with pytest.raises(TypeError, match='with_scores'):
        head.predict(batch[0], samples(batch[1]), with_scores=True)
