"""Two processes over gloo train as one with the batches of both."""
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retrieval.heads import MetricHead
from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

from ..processes import leave_group

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
