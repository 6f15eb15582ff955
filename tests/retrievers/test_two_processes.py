"""Two processes train as one with twice the batch, with memories and queues too."""
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import nn

from retrieval.registry import MODELS
from retrieval.structures import RetrievalDataSample

from ..processes import leave_group

B, STEPS = 3, 5


class Linear(nn.Module):
    embedding_size = 5

    def __init__(self, norm=False):
        super().__init__()
        self.linear = nn.Linear(48, 5)
        self.norm = nn.BatchNorm1d(5) if norm else nn.Identity()

    def forward(self, images):
        return self.norm(self.linear(images.flatten(1)))


def head(kind, **options):
    return dict(head=dict(type='retrieval.MetricHead', loss=dict(type=kind, **options)))


def memory(**options):
    return head('retrieval.CrossBatchMemory', loss=dict(type='ContrastiveLoss'), embedding_size=5,
                **options)


MOMENTUM = dict(type='retrieval.MomentumRetriever', queue_size=16, momentum=0.8)
SELF_SUPERVISED = dict(type='retrieval.SelfSupervisedRetriever', projector=dict(
    in_features=5, hidden_features=6, out_features=4, norm=False))
KINDS = {
    'memory': (1, dict(**memory(memory_size=16, warmup_iters=1,
                                miner=dict(type='MultiSimilarityMiner')))),
    'memory, after': (1, memory(memory_size=7, enqueue='after')),
    'momentum, InfoNCE': (2, MOMENTUM),
    'momentum, classes and views': (2, {**MOMENTUM, **head('PML.NTXentLoss', temperature=0.5)}),
    'momentum, classes': (1, {**MOMENTUM, **head('PML.MultiSimilarityLoss')}),
    'self-supervised': (2, {**SELF_SUPERVISED, **head('PML.NTXentLoss')}),
    'two sets of views': (2, {**SELF_SUPERVISED, **head('PML.VICRegLoss')}),
}


def build(options, norm=False):
    torch.manual_seed(0)
    return MODELS.build({'type': 'retrieval.ImageToImageRetriever', 'image_encoder': Linear(norm),
                         'prototype': torch.rand(3, 5), **options})


def batch(step, views, rows):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(2, 2 * B, 3, 4, 4, generator=generator)
    labels = torch.randint(3, (2 * B,), generator=generator)
    samples = [RetrievalDataSample(metainfo=dict(sample_idx=2 * B * step + row)).set_gt_label(
        labels[row]) for row in range(2 * B)]
    inputs = [view[rows] for view in images] if views == 2 else images[0][rows]
    return dict(inputs=inputs, data_samples=samples[rows])


def train(name, rows, wrap=lambda model: model):
    """What is left after some steps on these rows of each batch, and each step's loss."""
    views, options = KINDS[name]
    model = build(options)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    wrapped = wrap(model)
    values = [wrapped.train_step(batch(step, views, rows), wrapper)['loss']
              for step in range(STEPS)]
    return model.state_dict(), torch.stack(values)


def process(number, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=number,
                            world_size=2)
    rows = slice(number * B, (number + 1) * B)
    out = {name: train(name, rows, MMDistributedDataParallel) for name in KINDS}
    # keys that are encoded in other batches come back in the order of their images
    model = build({**MOMENTUM, 'shuffle_batch_norm': True}, norm=True)
    given = batch(0, 2, rows)['inputs'][1]
    keys, own = model._keys(given[:B - number])
    out['dealt out'] = keys, own.start, own.stop
    torch.save(out, f'{folder}/{number}.pth')
    leave_group()


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp('processes')
    mp.spawn(process, args=(folder,), nprocs=2)
    return [torch.load(folder / f'{number}.pth', weights_only=True) for number in range(2)]


@pytest.mark.parametrize('name', KINDS)
def test_two_processes_are_one(name, both):
    state, values = train(name, slice(0, 2 * B))
    (first, first_values), (second, second_values) = both[0][name], both[1][name]
    torch.testing.assert_close((first_values + second_values) / 2, values, rtol=1e-5, atol=1e-5)
    for part, value in state.items():
        assert torch.equal(first[part], second[part]), part
        torch.testing.assert_close(first[part], value, rtol=1e-5, atol=1e-5, msg=part)


def test_keys_are_encoded_in_other_batches_than_their_queries(both):
    images = batch(0, 2, slice(0, 2 * B))['inputs'][1][:2 * B - 1]
    keys = torch.empty(2 * B - 1, 5)
    for number in range(2):  # the process that encodes a key takes every other image
        encoder = build(MOMENTUM, norm=True).key_encoder
        keys[number::2] = encoder(images[number::2])
    for number, own in enumerate(([0, 3], [3, 5])):
        found, *place = both[number]['dealt out']
        torch.testing.assert_close(found, keys)
        assert place == own
