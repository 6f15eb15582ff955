"""From the official files through a Runner to figures, against the official programs step by step.

The loops below say in other words what these do: ``evaluate.py`` of revisitop, ``metrics.py`` for
Google Landmarks of DELF, and ``eval_market1501`` of torchreid.
"""
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from retrieval.registry import DATASETS, MODELS

from .landmark_miniatures import MAKERS, VERI

BASES = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'


@MODELS.register_module(force=True)
class SmallEncoder(nn.Module):
    """Mean and spread of the colours, centred: pictures of all directions, most not quite right."""

    def forward(self, inputs):
        pixels = inputs.flatten(2) / 99
        return torch.cat([pixels.mean(2) - 1.3, pixels.std(2) - 0.3], dim=1)


class Evaluated:
    """What a Runner reports of a base config, and the same sides encoded one image at a time."""

    def __init__(self, base, root, monkeypatch, work_dir):
        from mmengine.runner import Runner
        monkeypatch.setenv('DATA_ROOT', str(root))
        config = Config.fromfile(BASES / f'{base}.py')
        for loader in (config.test_dataloader, config.gallery_dataloader):
            loader.num_workers = 0
        runner = Runner(
            model=dict(type='ImageToImageRetriever', image_encoder=dict(type='SmallEncoder'),
                       prototype=config.gallery_dataloader, topk=5),
            test_dataloader=config.test_dataloader, test_evaluator=config.test_evaluator,
            test_cfg=dict(), custom_hooks=[dict(type='PreparePrototypeHook')],
            default_scope='retrieval', work_dir=str(work_dir), log_level='ERROR',
            experiment_name=uuid4().hex)
        self.figures = {name.removeprefix('embedding/'): value
                        for name, value in runner.test().items()}
        self.query, self.gallery = (DATASETS.build(loader.dataset) for loader in (
            config.test_dataloader, config.gallery_dataloader))
        queries, rows = (self.encode(dataset) for dataset in (self.query, self.gallery))
        self.ranks = np.argsort(-(queries @ rows.T), axis=1, kind='stable')

    @staticmethod
    def encode(dataset):
        vectors = torch.cat([SmallEncoder()(dataset[row]['inputs'][None].float())
                             for row in range(len(dataset))])
        return nn.functional.normalize(vectors.double()).numpy()


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    def evaluated(name, base):
        truth = MAKERS[name](tmp_path / 'data')
        return Evaluated(base, tmp_path / 'data', monkeypatch, tmp_path / 'work'), truth
    return evaluated


def trapezoids(places, total):
    """Area below precision over recall; places count from 0."""
    area = 0.
    for found, place in enumerate(places):
        before = found / place if place else 1.
        area += (before + (found + 1) / (place + 1)) / total / 2
    return area


def revisited(ranks, wanted, junk):
    """mAP and mP@1, 5, 10 over the queries that have something to find."""
    areas, precisions = [], []
    for order, good, ignored in zip(ranks.tolist(), wanted, junk, strict=True):
        if not good:
            continue
        places, ignored_before = [], 0
        for place, row in enumerate(order):
            if row in ignored:
                ignored_before += 1
            elif row in good:
                places.append(place - ignored_before)
        areas.append(trapezoids(places, len(good)))
        last = max(places) + 1
        precisions.append([sum(place + 1 <= min(last, k) for place in places) / min(last, k)
                           for k in (1, 5, 10)])
    return [100 * np.mean(areas), *(100 * np.mean(precisions, axis=0))]


@pytest.mark.parametrize('name', [
    pytest.param('revisited_oxford', marks=pytest.mark.slow), 'revisited_paris'])
def test_revisited(evaluated, name):
    run, truth = evaluated(name, f'{name}_1024')
    easy, hard, junk = ([set(map(int, query[key])) for query in truth['gnd']]
                        for key in ('easy', 'hard', 'junk'))
    either = [a | b for a, b in zip(easy, hard, strict=True)]
    levels = {'easy': (easy, [a | b for a, b in zip(junk, hard, strict=True)]),
              'medium': (either, junk),
              'hard': (hard, [a | b for a, b in zip(junk, easy, strict=True)])}
    for level, (wanted, ignored) in levels.items():
        got = [run.figures[f'{level}/{metric}']
               for metric in ('mAP-trapezoid', 'mP@1', 'mP@5', 'mP@10')]
        assert got == pytest.approx(revisited(run.ranks, wanted, ignored), abs=1e-3)
        assert 5 < got[0] < 99  # neither trivial nor perfect
    assert run.figures['easy/num_skipped_queries'] == 1
    assert len({run.figures[f'{level}/mAP-trapezoid'] for level in levels}) == 3


def test_google_landmarks(evaluated):
    run, solution = evaluated('google_landmarks_v2', 'google_landmarks_v2_1024')
    ids = [Path(name).stem for name in run.gallery.sample_ids]
    total = 0.
    for query, order in zip(run.query.sample_ids, run.ranks.tolist(), strict=True):
        wanted = solution[Path(query).stem]
        hits, precision = 0, 0.
        for place, row in enumerate(order[:100]):
            if ids[row] in wanted:
                hits += 1
                precision += hits / (place + 1)
        total += precision / min(len(wanted), 100)
    judged = [name for name, images in solution.items() if images]
    assert [Path(query).stem for query in run.query.sample_ids] == judged
    assert run.figures['mAP@100'] == pytest.approx(100 * total / len(judged), abs=1e-3)
    assert 5 < run.figures['mAP@100'] < 99


def reidentification(run):
    """mAP step by step, CMC@1 and 5, and mINP; who is who is read from the names of the files."""
    parts = [[(Path(name).name.split('_')[0], Path(name).name.split('_')[1][:4].split('s')[0])
              for name in dataset.sample_ids] for dataset in (run.query, run.gallery)]
    rows = []
    for (person, camera), order in zip(parts[0], run.ranks.tolist(), strict=True):
        ranked = [parts[1][row] for row in order]
        kept = [other == person for other, place in ranked if (other, place) != (person, camera)]
        if not any(kept):
            continue
        hits = np.flatnonzero(kept) + 1
        rows.append([np.mean(np.arange(1, len(hits) + 1) / hits), hits[0] <= 1, hits[0] <= 5,
                     len(hits) / hits[-1]])
    return (100 * np.mean(np.array(rows, dtype=float), axis=0)).tolist()


@pytest.mark.parametrize('name, base', [('market1501', 'market1501_256x128'),
                                        ('veri776', 'veri776_256')])
def test_reidentification(evaluated, name, base):
    run, _ = evaluated(name, base)
    got = [run.figures[metric] for metric in ('mAP', 'CMC@1', 'CMC@5', 'mINP')]
    assert got == pytest.approx(reidentification(run), abs=1e-3)
    assert 5 < run.figures['mAP'] < 99


def test_the_same_camera_is_what_veri_calls_junk(evaluated):
    """The junk list of the dataset names the rows of the query's vehicle and camera."""
    run, _ = evaluated('veri776', 'veri776_256')
    for row, name in enumerate(VERI['query']):
        info = run.query.get_data_info(row)
        junk = [other for other in VERI['test'] if other[:9] == name[:9]]
        labels, cameras = run.gallery.labels, run.gallery.metadata['camera']
        assert junk == [VERI['test'][other] for other in range(len(VERI['test']))
                        if labels[other] == info['gt_label'] and cameras[other] == info['camera']]
        assert name in junk
