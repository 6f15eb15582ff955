"""What is reported does not depend on the number of processes."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.evaluator import Evaluator

from retrieval.evaluation import (
    PROTOCOLS,
    EmbeddingMetrics,
    RetrievalAveragePrecision,
    RetrievalRecall,
    evaluate,
)
from retrieval.structures import RetrievalDataSample

from ..processes import leave_group

COUNT = 23  # divides by neither number of processes


def make_samples(numbered=True):
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(COUNT, 5, generator=generator)
    ranked = (vectors @ vectors.T).fill_diagonal_(-9).sort(descending=True).indices
    made = []
    for row in range(COUNT):
        meta = {'sample_idx': row, 'sample_id': f'picture {row}'} if numbered else {}
        sample = RetrievalDataSample(metainfo=meta).set_gt_label(row % 4)
        sample.embedding = vectors[row]
        sample.set_gt_indices([other for other in range(COUNT) if other % 4 == row % 4])
        made.append(sample.set_pred_label(ranked[row, :-1]))
    return made


def reported(part=0, parts=1, numbered=True):
    """Everything that is measured where the samples are dealt out in turn, with padding."""
    made = make_samples(numbered)
    length = -(-COUNT // parts) * parts
    mine = [made[row % COUNT] for row in range(part, length, parts)]
    metrics = [RetrievalRecall((1, 3)), RetrievalAveragePrecision(10)]
    if numbered:
        metrics += [EmbeddingMetrics(('Recall@1', 'MAP@R', 'mAP', 'mINP'), average='macro'),
                    EmbeddingMetrics(('Recall@1', 'R-Precision'), prefix='shallow')]
    evaluator = Evaluator(metrics)
    evaluator.process(mine)
    return evaluator.evaluate(COUNT)


def shared_work(sharded):
    """Shallow and full rankings, by leave-one-out and with a gallery, in many small tiles."""
    generator = torch.Generator().manual_seed(1)
    vectors, labels = torch.randn(301, 8, generator=generator), torch.arange(301) % 60
    options = {'tile_budget': 64 * 64, 'sharded': sharded}
    return [evaluate(vectors, labels, metrics=('Recall@1', 'MAP@R'), **options),
            evaluate(vectors, labels, metrics=('mAP', 'mINP'), **options),
            evaluate(vectors[:99], labels[:99], vectors[99:], labels[99:], **options)]


def protocol_samples():
    """Queries with everything that any protocol reads, and their gallery."""
    generator = torch.Generator().manual_seed(4)
    draw = lambda *shape: torch.randint(0, 9, shape, generator=generator)  # noqa: E731
    gallery = SimpleNamespace(
        embeddings=torch.randn(83, 7, generator=generator), labels=draw(83),
        ids=[f'g{row}' for row in range(83)], metadata={'camera': draw(83) % 3})
    made = []
    for row in range(29):
        rows = torch.randperm(83, generator=generator)[:12].tolist()
        sample = RetrievalDataSample(metainfo={
            'sample_idx': row, 'sample_id': f'q{row}', 'camera': int(draw(1)) % 3,
            'gt_easy': rows[:4], 'gt_hard': rows[4:7], 'gt_junk': rows[7:]})
        sample.set_gt_label(int(draw(1)))
        sample.embedding = torch.randn(7, generator=generator)
        made.append(sample)
    return made, gallery


def of_protocol(name, part=0, parts=1):
    """What one process reports that was given an uneven share and repeats of it."""
    made, gallery = protocol_samples()
    if name == 'GoogleLandmarksV2':
        for sample in made:
            sample.set_gt_indices(sample.gt_easy)
    edges = [0, 3, 20, len(made)] if parts == 3 else [0, 5, len(made)] if parts == 2 else [0, None]
    share = made[edges[part]:edges[part + 1]]
    evaluator = Evaluator([EmbeddingMetrics(protocol=name)])
    evaluator.metrics[0].set_gallery(gallery)
    evaluator.process([*share, *share[:2]])
    return evaluator.evaluate(len(made))


def without_samples(part, parts):
    """One process has all samples and the others none."""
    evaluator = Evaluator([EmbeddingMetrics('Recall@1')])
    evaluator.process(make_samples() if part == parts - 1 else [])
    return evaluator.evaluate(COUNT)


def process(part, parts, folder):
    """All that one of several processes reports."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=part,
                            world_size=parts)
    found = {'numbered': reported(part, parts), 'unnumbered': reported(part, parts, False),
             'without samples': without_samples(part, parts), 'sharded': shared_work(True),
             'alone': shared_work(False),
             'protocols': {name: of_protocol(name, part, parts) for name in PROTOCOLS}}
    (folder / f'{part}.json').write_text(json.dumps(found))
    leave_group()


@pytest.fixture(scope='module', params=[2, 3])
def processes(request, tmp_path_factory):
    """What each of several processes reports."""
    folder = tmp_path_factory.mktemp('processes')
    mp.spawn(process, args=(request.param, folder), nprocs=request.param)
    return [json.loads((folder / f'{part}.json').read_text()) for part in range(request.param)]


@pytest.mark.parametrize('numbered', [True, False])
def test_every_number_of_processes_gives_the_same(processes, numbered):
    expected = reported(numbered=numbered)
    for found in processes:
        found = found['numbered' if numbered else 'unnumbered']
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-9)


def test_a_process_may_have_no_samples(processes):
    for found in processes:
        assert found['without samples'] == without_samples(0, 1)
        assert found['without samples']['embedding/num_queries'] == COUNT


def test_the_work_is_shared_and_every_process_has_the_same(processes):
    for found in processes:
        assert found['sharded'] == found['alone'] == shared_work(False)


def test_every_protocol_on_several_processes(processes):
    expected = {name: of_protocol(name) for name in PROTOCOLS}
    for found in processes:
        assert found['protocols'] == expected
