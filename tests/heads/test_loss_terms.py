"""What the losses of a head are given and refuse; two processes train as one with both batches."""
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from pytorch_metric_learning import losses
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from retrieval.heads import ClassificationHead, MetricHead
from retrieval.losses.interface import interface_of
from retrieval.losses.pml import build_component
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

from ..losses.test_every_loss import LOSSES, OPTIONS
from ..processes import leave_group


def samples(labels):
    return [RetrievalDataSample().set_gt_label(label) for label in labels]


@pytest.fixture
def batch():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), [0, 0, 1, 1, 2, 2]


@pytest.fixture
def reference():
    return (torch.randn(5, 4, generator=torch.Generator().manual_seed(1)),
            torch.tensor([0, 1, 1, 2, 0]))


def contrastive(embeddings, labels, others, other_labels):
    """Distances of positive pairs, and what negatives lack to a distance of 1: the means of those
    above zero, by a plain loop."""
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    other = others / others.norm(dim=1, keepdim=True)
    positive, negative = [], []
    for a, label in enumerate(labels):
        for b, other_label in enumerate(other_labels):
            distance = (unit[a] - other[b]).norm().item()
            (positive if label == other_label else negative).append(
                distance if label == other_label else max(0.0, 1 - distance))
    return sum(sum(values) / max(1, sum(value > 0 for value in values))
               for values in (positive, negative))


def test_a_reference_set_takes_the_place_of_the_batch(batch, reference):
    embeddings, labels = batch
    others, other_labels = reference
    out = MetricHead(dict(type='PML.ContrastiveLoss')).loss(
        embeddings, samples(labels), ref_emb=others.double(), ref_labels=other_labels)
    expected = contrastive(embeddings, labels, others, other_labels.tolist())
    assert out['loss'].item() == pytest.approx(expected, rel=1e-5)


def test_miners_look_in_the_reference_set(batch, reference):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.TripletMarginLoss'), miner=dict(type='BatchHardMiner'))
    out = head.loss(embeddings, samples(labels), *reference)
    assert out['mined_triplets'] == 6
    mined = head.miners['triplet_margin'](embeddings, torch.tensor(labels), *reference)
    assert int(mined[1].max()) < 5
    expected = losses.TripletMarginLoss()(embeddings, torch.tensor(labels), mined, *reference)
    assert out['loss'] == expected


def test_only_the_losses_that_take_a_reference_set_get_it(batch, reference):
    embeddings, labels = batch
    head = MetricHead([dict(type='PML.ContrastiveLoss'),
                       dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=4)])
    plain = head.loss(embeddings, samples(labels))
    out = head.loss(embeddings, samples(labels), *reference)
    assert out['loss_arc_face'] == plain['loss_arc_face']
    assert out['loss_contrastive'] != plain['loss_contrastive']


def test_a_mask_says_what_a_memory_takes_in(batch):
    embeddings, labels = batch
    head = MetricHead(dict(type='PML.CrossBatchMemory', embedding_size=4, memory_size=8,
                           loss=dict(type='ContrastiveLoss')))
    mask = torch.tensor([False, True] * 3)
    out = head.loss(embeddings, samples(labels), enqueue_mask=mask)
    memory = head.losses['cross_batch_memory']
    assert torch.equal(memory.embedding_memory[:3], embeddings[1::2])
    assert memory.queue_idx == 3
    expected = contrastive(embeddings[::2], [0, 1, 2], embeddings[1::2], [0, 1, 2])
    assert out['loss'].item() == pytest.approx(expected, rel=1e-5)

    # of two views the second is the memory's
    mask = torch.tensor([False] * 3 + [True] * 3)
    head.loss([embeddings[:3], embeddings[3:]], samples([0, 1, 2]), enqueue_mask=mask)
    assert torch.equal(memory.embedding_memory[3:6], embeddings[3:])


def test_losses_of_ones_own_say_by_their_signature_what_they_take(batch):
    embeddings, labels = batch

    class Drift(nn.Module):
        def forward(self, embeddings, labels, enqueue_mask):
            return embeddings[enqueue_mask].sum()

    mask = torch.tensor([True, False] * 3)
    out = MetricHead(Drift()).loss(embeddings, samples(labels), enqueue_mask=mask)
    torch.testing.assert_close(out['loss'], embeddings[::2].sum())


def test_what_the_losses_of_the_library_take():
    reference = {'ref_emb', 'ref_labels'}
    for loss, extra in ((losses.ContrastiveLoss(), reference), (losses.NTXentLoss(), reference),
                        (losses.ProxyNCALoss(3, 4), set()), (losses.SmoothAPLoss(), set()),
                        (losses.CrossBatchMemory(losses.NTXentLoss(), 4), {'enqueue_mask'})):
        assert interface_of(loss).extra == extra


@pytest.mark.parametrize('extra, says', [
    (dict(ref_emb=torch.rand(5, 4)), 'together'),
    (dict(ref_emb=torch.rand(5, 3), ref_labels=torch.zeros(5).long()), r'\(5, 3\).*\(R, 4\)'),
    (dict(ref_emb=torch.rand(5, 4), ref_labels=torch.zeros(4).long()), r'\(5,\) int64'),
    (dict(ref_emb=torch.rand(5, 4), ref_labels=torch.zeros(5)), r'float32'),
    (dict(enqueue_mask=torch.ones(6).bool()), 'enqueue_mask.*none of the losses.*ContrastiveLoss'),
    (dict(enqueue_mask=torch.ones(5).bool()), r'\(6,\) bool.*\(5,\)'),
    (dict(enqueue_mask=torch.ones(6)), r'float32'),
])
def test_bad_extra(batch, extra, says):
    with pytest.raises(ValueError, match=says):
        MetricHead(dict(type='PML.ContrastiveLoss')).loss(batch[0], samples(batch[1]), **extra)


LABELS = [[0, 1, 2, 0, 1, 2], [1, 3, 0, 2, 3, 1]]  # of each process
UNEVEN = [[0, 1, 2, 0, 1, 2, 3], [3, 3, 0, 2]]
WEIGHTED = dict(num_classes=4, embedding_size=5)
SOFTMAX = dict(type='ClassificationHead', num_classes=4, in_features=5)
MEMORY = dict(type='PML.CrossBatchMemory', embedding_size=5, memory_size=30,
              loss=dict(type='ContrastiveLoss'), miner=dict(type='MultiSimilarityMiner'))

# A head, and what its batches are like.
CASES = {
    'arcface': (dict(loss=dict(type='PML.ArcFaceLoss', **WEIGHTED)), {}),
    'proxy anchor, uneven': (dict(loss=dict(type='PML.ProxyAnchorLoss', **WEIGHTED)),
                             dict(labels=UNEVEN)),
    'pairs': (dict(loss=dict(type='PML.ContrastiveLoss')), {}),
    'triplets of a miner, uneven': (dict(
        loss=dict(type='PML.TripletMarginLoss', margin=0.3),
        miner=dict(type='PML.BatchHardMiner')), dict(labels=UNEVEN)),
    'several losses, uneven': (dict(loss=[
        dict(type='PML.MultiSimilarityLoss', miner=dict(type='MultiSimilarityMiner')),
        dict(type='PML.ProxyNCALoss', loss_weight=0.5, **WEIGHTED),
        dict(loss_weight=2, **SOFTMAX)], loss_weight=0.3), dict(labels=UNEVEN)),
    'views, uneven': (dict(loss=dict(type='PML.NTXentLoss')), dict(labels=UNEVEN, views=2)),
    'views without classes': (dict(loss=dict(type='PML.VICRegLoss')), dict(views=2)),
    'memory': (dict(loss=MEMORY), {}),
    'memory with a mask, uneven': (dict(loss=[MEMORY, dict(type='PML.NTXentLoss')]),
                                   dict(labels=UNEVEN, views=2, masked=True)),
    'reference set, uneven': (dict(
        loss=dict(type='PML.TripletMarginLoss'), miner=dict(type='PML.BatchHardMiner')),
        dict(labels=UNEVEN, reference=True)),
    'regularizers': (dict(loss=dict(
        type='PML.CosFaceLoss', **WEIGHTED, weight_regularizer=dict(type='RegularFaceRegularizer'),
        embedding_regularizer=dict(type='LpRegularizer'))), {}),
}


NORMS = [(name, False) for name in CASES] + [
    (name, True) for name in ('arcface', 'several losses, uneven', 'views, uneven', 'memory')]


class FrozenNorm(nn.BatchNorm1d):
    """Batch normalisation that keeps its statistics."""

    def __init__(self, width):
        super().__init__(width)
        self.running_mean += torch.linspace(-1, 1, width)
        self.running_var *= 2

    def train(self, mode=True):
        return super().train(False)


class Model(BaseModel):
    def __init__(self, head, norm):
        super().__init__()
        torch.manual_seed(3)
        self.encoder = nn.Sequential(nn.Linear(6, 8), FrozenNorm(8) if norm else nn.Tanh(),
                                     nn.Linear(8, 5))
        self.head = MODELS.build(dict(type='retrieval.MetricHead', **head))
        self.train()

    def forward(self, inputs, data_samples=None, mode='loss', ref=None, ref_labels=None,
                enqueue_mask=None):
        feats = [self.encoder(view) for view in inputs]
        reference = {} if ref is None else dict(ref_emb=self.encoder(ref), ref_labels=ref_labels)
        return self.head.loss(feats, data_samples, enqueue_mask=enqueue_mask, **reference)


def batches(step, processes, labels=LABELS, views=1, masked=False, reference=False):
    """The batch of some of the two processes, one after another."""
    generator = torch.Generator().manual_seed(step)
    count = sum(map(len, labels))
    inputs = torch.randn(count, views, 6, generator=generator)
    ref = torch.randn(2, 4, 6, generator=generator)
    ends = [0, len(labels[0]), count]
    rows = [row for p in processes for row in range(ends[p], ends[p + 1])]
    flat = [label for each in labels for label in each]
    batch = dict(inputs=list(inputs[rows].transpose(0, 1)),
                 data_samples=[RetrievalDataSample().set_gt_label(flat[row]) for row in rows])
    if reference:
        batch.update(ref=ref[processes].flatten(0, 1),
                     ref_labels=torch.tensor([0, 1, 2, 3] * len(processes)))
    if masked:
        batch['enqueue_mask'] = torch.tensor([False, True]).repeat_interleave(len(rows))
    return batch


def train(model, processes, settings):
    """Losses, gradients and weights of two steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(2):
        out = model(**batches(step, processes, **settings))
        optimizer.zero_grad()
        sum(value for name, value in out.items() if 'loss' in name).backward()
        found.append({name: value.detach().clone() for name, value in out.items()})
        found.append({name.removeprefix('module.'): weight.grad.clone()
                      for name, weight in model.named_parameters() if weight.grad is not None})
        optimizer.step()
    return found


def process(number, world, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=number,
                            world_size=world)
    found = {}
    for name, norm in NORMS:
        head, settings = CASES[name]
        model = Model(head, norm)
        if number:  # DistributedDataParallel hands out the first process's
            nn.init.zeros_(model.encoder[0].weight)
        found[name, norm] = train(DistributedDataParallel(model), [number], settings)
    found['local'] = train(Model(dict(CASES['pairs'][0], gather=False), False), [number], {})
    found['engine'] = engine_steps(MMDistributedDataParallel(Model(CASES['arcface'][0], True)),
                                   [number])
    torch.save(found, f'{folder}/{number}.pt')
    leave_group()


def engine_steps(model, processes):
    """Weights after steps as MMEngine's Runner makes them."""
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01))
    for step in range(3):
        model.train_step(batches(step, processes), wrapper)
    return {name.removeprefix('module.'): value for name, value in model.state_dict().items()}


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('processes')
    mp.spawn(process, args=(2, folder), nprocs=2)
    return [torch.load(folder / f'{number}.pt', weights_only=True) for number in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize('name, norm', NORMS)
def test_two_processes_are_one_with_both_batches(found, name, norm):
    head, settings = CASES[name]
    expected = train(Model(head, norm), [0, 1], settings)
    assert any(value.abs().max() > 1e-3 for value in expected[1].values())
    for own in found:
        for step, (values, wanted) in enumerate(zip(own[name, norm], expected, strict=True)):
            assert set(values) == set(wanted)
            for key, value in wanted.items():
                torch.testing.assert_close(values[key], value, atol=1e-5, rtol=1e-5,
                                           msg=lambda m, at=(step, key): f'{at}: {m}')


def test_the_engine_trains_as_one_process(found):
    expected = engine_steps(Model(CASES['arcface'][0], True), [0, 1])
    before = Model(CASES['arcface'][0], True).state_dict()
    assert not torch.equal(before['head.losses.arc_face.W'], expected['head.losses.arc_face.W'])
    for own in found:
        for name, value in expected.items():
            torch.testing.assert_close(own['engine'][name], value, atol=1e-5, rtol=1e-5)


def test_without_gathering_each_process_is_by_itself(found):
    for number, own in enumerate(found):
        expected = train(Model(CASES['pairs'][0], False), [number], {})
        for values, wanted in zip(own['local'], expected, strict=True):
            for name, value in wanted.items():
                torch.testing.assert_close(values[name], value)
    assert not math.isclose(found[0]['local'][0]['loss'], found[1]['local'][0]['loss'])


def test_one_process_gathers_nothing():
    labels = [RetrievalDataSample().set_gt_label(label) for label in [0, 0, 1, 1]]
    feats = torch.rand(4, 5)
    values = [MetricHead(dict(type='PML.NTXentLoss'), gather=gather).loss(feats, labels)['loss']
              for gather in (True, False)]
    assert torch.equal(*values)


WITHOUT = {  # losses that a batch of different classes teaches something
    'ArcFaceLoss', 'CosFaceLoss', 'LargeMarginSoftmaxLoss', 'NormalizedSoftmaxLoss', 'P2SGradLoss',
    'ProxyAnchorLoss', 'ProxyNCALoss', 'SoftTripleLoss', 'SphereFaceLoss', 'SubCenterArcFaceLoss',
    'CrossBatchMemory', 'InstanceLoss', 'ManifoldLoss', 'SelfSupervisedLoss', 'VICRegLoss'}


@pytest.mark.parametrize('name', LOSSES)
def test_which_losses_compare_samples_of_a_class(name):
    loss = build_component(dict(type=f'PML.{name}', **OPTIONS.get(name, {})))
    assert interface_of(loss).needs_positives == (name not in WITHOUT)


def test_a_loss_may_say_so_itself():
    class Own(nn.Module):
        needs_positives = True

        def forward(self, embeddings, labels):
            return embeddings.sum()

    assert interface_of(Own()).needs_positives and not interface_of(nn.Linear(2, 2)).needs_positives
    with pytest.raises(ValueError, match="'own' compares"):
        MetricHead(Own()).loss(torch.rand(2, 4), samples([0, 1]))
    named = losses.MultipleLosses(dict(a=losses.ArcFaceLoss(3, 4), b=losses.NTXentLoss()))
    assert interface_of(named).needs_positives
    assert not interface_of(losses.MultipleLosses([losses.ArcFaceLoss(3, 4)])).needs_positives


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


TERM_SOFTMAX = dict(type='ClassificationHead', num_classes=4, in_features=6)
ANCHORS = dict(type='PML.ProxyAnchorLoss', num_classes=4, embedding_size=6)
TERM_LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


def term_samples(labels=TERM_LABELS):
    return [RetrievalDataSample().set_gt_label(int(label)) for label in labels]


@pytest.fixture
def feats():
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_a_classifier_and_a_metric_loss_share_the_embeddings(feats):
    head = MODELS.build(dict(type='retrieval.MetricHead', loss_weight=0.5, loss=[
        dict(type='PML.TripletMarginLoss', margin=0.3, miner=dict(type='BatchHardMiner')),
        dict(TERM_SOFTMAX, loss_weight=3, label_smoothing=0.1)]))
    assert list(head.losses) == ['triplet_margin', 'classification']
    assert (head.num_classes, head.embedding_size) == (4, 6)
    out = head.loss(feats, term_samples())
    fc = head.losses['classification'].fc
    expected = functional.cross_entropy(fc(feats), TERM_LABELS, label_smoothing=0.1)
    torch.testing.assert_close(out['loss_classification'], 1.5 * expected)
    alone = MetricHead(dict(type='PML.TripletMarginLoss', margin=0.3),
                       miner=dict(type='BatchHardMiner')).loss(feats, term_samples())
    torch.testing.assert_close(out['loss_triplet_margin'], 0.5 * alone['loss'])
    assert out['mined_triplets_triplet_margin'] == 8
    sum(value for name, value in out.items() if 'loss' in name).backward()
    assert fc.weight.grad.abs().sum() > 0


def test_each_loss_has_its_own_miner(feats):
    head = MetricHead([
        dict(type='PML.TripletMarginLoss', miner=dict(type='BatchHardMiner')),
        dict(type='PML.ContrastiveLoss', miner=dict(type='PairMarginMiner')),
        dict(ANCHORS)])
    out = head.loss(feats, term_samples())
    assert set(head.miners) == {'triplet_margin', 'contrastive'}
    assert {name for name in out if 'mined' in name} == {
        'mined_triplets_triplet_margin', 'mined_positives_contrastive',
        'mined_negatives_contrastive'}


def test_a_classifier_keeps_the_weight_that_it_was_built_with(feats):
    classifier = ClassificationHead(4, 6, loss_weight=0.25)
    out = MetricHead([classifier, dict(ANCHORS)]).loss(feats, term_samples())
    torch.testing.assert_close(out['loss_classification'],
                               classifier.loss(feats, term_samples())['loss'])


def test_regularizers_of_embeddings_and_weights_are_added(feats):
    plain = MetricHead(ANCHORS)
    head = MetricHead(dict(
        ANCHORS, weight_regularizer=dict(type='PML.RegularFaceRegularizer'), weight_reg_weight=0.7,
        embedding_regularizer=dict(type='LpRegularizer', power=2), embedding_reg_weight=0.01))
    head.load_state_dict(plain.state_dict())
    added = (head.loss(feats, term_samples())['loss']
             - plain.loss(feats, term_samples())['loss']).item()
    proxies = head.losses['proxy_anchor'].proxies
    nearest = [max(functional.cosine_similarity(proxies[a], proxies[b], dim=0).item()
                   for b in range(4) if a != b) for a in range(4)]
    lengths = [sum(value**2 for value in row) for row in feats.tolist()]
    expected = 0.7 * sum(nearest) / 4 + 0.01 * sum(lengths) / 8
    assert added == pytest.approx(expected, rel=1e-4)


class TermModel(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.encoder = nn.Linear(5, 6)
        self.head = MODELS.build(dict(type='retrieval.MetricHead', loss=head))


def test_proxies_and_class_weights_have_their_own_learning_rates():
    model = TermModel([ANCHORS, TERM_SOFTMAX,
                       dict(type='PML.ArcFaceLoss', num_classes=4, embedding_size=6)])
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
        one.loss(batch, term_samples())['loss'].backward()
    other.load_state_dict(one.state_dict())
    assert one.losses['dynamic_soft_margin'].hist_.sum() > 0
    assert one.loss(feats, term_samples())['loss'] == other.loss(feats, term_samples())['loss']
