import math
from copy import deepcopy

import pytest
import torch
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from pytorch_metric_learning import losses
from torch import nn
from torch.nn import functional

from retrieval.heads import ClassificationHead
from retrieval.registry import MODELS
from retrieval.retrievers import ImageToImageRetriever, MomentumRetriever
from retrieval.structures import RetrievalDataSample

from .toy import Encoder, loader

HEAD = dict(type='retrieval.MetricHead', loss=dict(type='PML.ContrastiveLoss'))


class Linear(nn.Module):
    embedding_size = 5

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 5)

    def forward(self, images):
        return self.linear(images.flatten(1))


def retriever(**kwargs):
    return MODELS.build({'type': 'retrieval.MomentumRetriever', 'image_encoder': Linear(),
                         'prototype': loader(), 'queue_size': 10, **kwargs})


def batch(number, count=4, labelled=False):
    generator = torch.Generator().manual_seed(number)
    samples = [RetrievalDataSample(metainfo=dict(sample_id=f'{number % 5}-{i}'))
               for i in range(count)]
    if labelled:
        for sample in samples:
            sample.set_gt_label(torch.randint(3, (1,), generator=generator))
    return dict(inputs=list(torch.randn(2, count, 3, 4, 4, generator=generator)),
                data_samples=samples)


def train(model, numbers, **kwargs):
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad],
                                lr=0.1)
    values = []
    for number in numbers:
        value = model.loss(**batch(number, **kwargs))['loss']
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def info_nce(query, key, queue, name, temperature):
    """He et al. (2020), eq. 1, by a plain loop over the queue of (vector, name)."""
    logits = [query @ key / temperature]
    logits += [query @ other / temperature for other, owner in queue if owner != name]
    return torch.stack(logits).logsumexp(0) - logits[0]


def test_it_is_momentum_contrast():
    """Against the algorithm of the paper written down with lists, through its wrapping queue."""
    torch.manual_seed(0)
    model = retriever(momentum=0.9, temperature=0.2)
    plain, keys = deepcopy(model.image_encoder), deepcopy(model.image_encoder)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    queue, expected = [], []
    for number in range(8):  # of 5 different batches: an image meets its older keys
        first, second = batch(number)['inputs']
        names = [sample.sample_id for sample in batch(number)['data_samples']]
        with torch.no_grad():
            for key, weight in zip(keys.parameters(), plain.parameters(), strict=True):
                key.copy_(0.9 * key + 0.1 * weight)
            key_rows = functional.normalize(keys(second))
        query_rows = functional.normalize(plain(first))
        value = sum(info_nce(*row, queue, name, 0.2)
                    for *row, name in zip(query_rows, key_rows, names, strict=True)) / 4
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        expected.append(value.item())
        queue = (queue + list(zip(key_rows, names, strict=True)))[-10:]
    assert train(model, range(8)) == pytest.approx(expected, abs=1e-5)
    assert expected[0] == 0 and expected[1] > 0
    for ours, theirs in zip(model.parameters(), [*plain.parameters(), *keys.parameters()],
                            strict=True):
        torch.testing.assert_close(ours, theirs)


def test_classes_of_the_queue_reach_the_head():
    torch.manual_seed(0)
    model = retriever(head=HEAD, momentum=0.5)
    plain, keys = deepcopy(model.image_encoder), deepcopy(model.key_encoder)
    rows, labels = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    for number in range(4):
        given = batch(number, labelled=True)
        classes = torch.cat([sample.gt_label for sample in given['data_samples']])
        with torch.no_grad():
            new = keys(given['inputs'][1])
        expected = losses.ContrastiveLoss()(
            plain(given['inputs'][0]), classes,
            ref_emb=torch.cat([new, rows]), ref_labels=torch.cat([classes, labels]))
        torch.testing.assert_close(model.loss(**given)['loss'], expected)
        rows, labels = torch.cat([rows, new])[-10:], torch.cat([labels, classes])[-10:]
    assert torch.equal(labels.sort().values, model.queue.labels.sort().values)


def test_one_view_never_meets_its_own_key():
    model = retriever(head=HEAD)
    given = [batch(number, labelled=True) for number in range(2)]
    for one in given:
        one['inputs'] = one['inputs'][0]
    first = model.loss(**given[0])['loss']
    classes = [torch.cat([sample.gt_label for sample in one['data_samples']]) for one in given]
    rows = [model.image_encoder(one['inputs']) for one in given]
    # but in the first batch, which has nothing else to be compared with
    torch.testing.assert_close(first, losses.ContrastiveLoss()(
        rows[0], classes[0], ref_emb=rows[0].detach(), ref_labels=classes[0]))
    torch.testing.assert_close(model.loss(**given[1])['loss'], losses.ContrastiveLoss()(
        rows[1], classes[1], ref_emb=rows[0], ref_labels=classes[0]))


def test_the_momentum_rises_to_one():
    model = retriever(momentum=0.9, momentum_iters=4)
    seen = []
    for number in range(6):
        seen.append(model.present_momentum())
        train(model, [number])
    assert seen == pytest.approx([1 - 0.1 * (math.cos(math.pi * t / 4) + 1) / 2
                                  for t in range(4)] + [1, 1])
    assert int(model.steps) == 6


def test_the_copy_is_saved_but_neither_trained_nor_searched_with():
    model = retriever(projector=dict(hidden_features=4, out_features=3, norm=False))
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(
        type='AdamW', lr=0.1, weight_decay=0.5)))
    copy = {name: value.clone() for name, value in model.key_encoder.state_dict().items()}
    model.momentum = 1.0
    for number in range(3):
        model.train_step(batch(number), wrapper)
    assert model.queue.embeddings.shape == (10, 3)
    for name, value in model.key_encoder.state_dict().items():
        assert torch.equal(value, copy[name]) and f'key_encoder.{name}' in model.state_dict()
    trained = [weight for weight in model.parameters() if weight in wrapper.optimizer.state]
    assert len(trained) == 6 and all(weight.requires_grad for weight in trained)

    plain = ImageToImageRetriever(deepcopy(model.image_encoder), loader()).eval()
    model.eval()
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(model(images), plain(images)) and model(images).shape == (2, 5)
    assert model.fingerprint() == plain.fingerprint()
    assert torch.equal(model.gallery.embeddings, plain.gallery.embeddings)


def test_evaluation_leaves_queue_and_copy_alone():
    model = retriever()
    train(model, range(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    model.loss(**batch(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_goes_on_from_its_state_and_can_be_copied():
    torch.manual_seed(0)
    model = retriever(momentum=0.9, momentum_iters=9)
    train(model, range(4))
    again = retriever(momentum=0.9, momentum_iters=9)
    again.load_state_dict(model.state_dict())
    average = ExponentialMovingAverage(model)  # a deep copy
    copy = deepcopy(model)
    expected = train(model, range(4, 8))
    assert train(again, range(4, 8)) == expected == train(copy, range(4, 8))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        assert torch.equal(copy.state_dict()[name], value)
    average.update_parameters(model)
    assert torch.equal(average.module.queue.embeddings, model.queue.embeddings)
    assert not any(weight.requires_grad for weight in average.module.parameters())


def test_a_checkpoint_without_keys_makes_them():
    from mmengine.runner import load_state_dict
    other = ImageToImageRetriever(Linear(), loader())
    for load in (MomentumRetriever.load_state_dict, load_state_dict):
        model = retriever()
        load(model, other.state_dict(), strict=False)
        assert torch.equal(model.key_encoder.linear.weight, other.image_encoder.linear.weight)
        assert torch.equal(model.image_encoder.linear.weight, other.image_encoder.linear.weight)


def test_the_copy_begins_like_the_encoder():
    class Drawn(BaseModule):
        embedding_size = 5

        def __init__(self):
            super().__init__(init_cfg=dict(type='Normal', layer='Linear', std=0.1))
            self.linear = nn.Linear(48, 5)

    model = retriever(image_encoder=Drawn())
    before = model.image_encoder.linear.weight.clone()
    model.init_weights()
    assert not torch.equal(before, model.image_encoder.linear.weight)
    assert torch.equal(model.key_encoder.linear.weight, model.image_encoder.linear.weight)


@pytest.mark.parametrize('options, error, says', [
    (dict(momentum=1.5), ValueError, 'momentum.*1.5'),
    (dict(momentum_iters=0), ValueError, 'momentum_iters.*0'),
    (dict(temperature=0), ValueError, 'temperature.*0'),
    (dict(queue_size=0), ValueError, 'size.*0'),
    (dict(image_encoder=Encoder()), ValueError, 'Encoder does not say.*embedding_size'),
    (dict(head=ClassificationHead(3, 5)), TypeError, 'ClassificationHead.*no ref_emb'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        MomentumRetriever(**{'image_encoder': Linear(), 'prototype': loader(), **options})


def test_bad_batches():
    model = retriever()
    given = batch(0)
    with pytest.raises(ValueError, match='two views.*got 1'):
        model.loss(given['inputs'][0], given['data_samples'])
    with pytest.raises(ValueError, match='two views.*got 3'):
        model.loss([*given['inputs'], given['inputs'][0]], given['data_samples'])
    with pytest.raises(ValueError, match='12 embeddings.*queue of 10'):
        model.loss(**batch(0, count=12))
    with pytest.raises(ValueError, match='no gt_label'):
        retriever(head=HEAD).loss(**given)
    with pytest.raises(ValueError, match='ref_emb was given.*ArcFaceLoss'):
        retriever(head=dict(type='MetricHead', loss=dict(
            type='PML.ArcFaceLoss', num_classes=3, embedding_size=5))).loss(
                **batch(0, labelled=True))
