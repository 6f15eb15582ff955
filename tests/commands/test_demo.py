"""The parts of the demo; the whole is run over a stand-in in test_manners.py."""
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retrieval.commands.demo import (
    CONFIG,
    METRICS,
    ROWS,
    baselines,
    draw_training,
    parser,
    raw_pixels,
    table,
    write_results,
)
from retrieval.datasets import ImageList
from retrieval.evaluation import evaluate
from retrieval.retrievers import ImageToImageRetriever

PICTURES = list(np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8))
RESULTS = {name: dict.fromkeys(METRICS, value) for name, value in zip(ROWS, (1, 2.5, 33.333),
                                                                     strict=True)}


class Labelled(ImageList):
    labels = [0, 0, 1, 1, 2, 2]


@pytest.fixture
def dataset():
    pictures = np.stack(PICTURES)
    pictures[:, 0, :2] = 0  # no ink in any
    return Labelled(list(pictures), pipeline=[dict(type='LoadImage', color='gray'),
                                              dict(type='PackInputs')])


def test_it_runs_the_shipped_config():
    assert parser().parse_args([]).config == CONFIG
    assert parser().parse_args([]).work_dir == 'work_dirs/demo'


def test_pixels_without_ink_are_left_out_and_change_no_product(dataset):
    rows = raw_pixels(dataset)
    whole = np.stack([dataset.get_data_info(row)['img'].reshape(-1) for row in range(6)]) / 255.
    assert rows.shape == (6, 14) and rows.dtype == torch.float32
    np.testing.assert_allclose(rows @ rows.T, whole @ whole.T, rtol=1e-5)


def test_what_training_is_compared_with(dataset):
    model = ImageToImageRetriever(torch.nn.Flatten())
    runner = SimpleNamespace(model=model, logger=logging.getLogger('nowhere'),
                             test_dataloader=SimpleNamespace(dataset=dataset))
    found = baselines(runner)
    wanted = evaluate(raw_pixels(dataset), dataset.labels, metrics=METRICS)
    assert found['pixels'] == {name: round(float(wanted[name]), 2) for name in METRICS}
    assert found['untrained'] == found['pixels'], 'this encoder gives the pixels'


def test_the_curves_are_those_of_the_log(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr('retrieval.visualization.plot_curves',
                        lambda curves, path, **options: drawn.update({path.name: curves}))
    log = [dict(step=1, loss=3.0), dict(step=1, **{'embedding/Recall@1': 40.0}),
           dict(step=2, loss=2.0, lr=1), dict(step=2, **{'embedding/Recall@1': 60.0})]
    (tmp_path / 'scalars.json').write_text('\n'.join(map(json.dumps, log)))
    draw_training(tmp_path / 'scalars.json', tmp_path, 20.0)
    assert drawn == {'loss.png': {'loss': [(1, 3.0), (2, 2.0)]},
                     'recall.png': {'Recall@1': [(0, 20.0), (1, 40.0), (2, 60.0)]}}


def test_results_as_a_file_and_as_a_table(tmp_path):
    write_results(RESULTS, tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text()) == RESULTS
    lines = table(RESULTS).splitlines()
    assert lines[0] == '| on classes never seen, percent | Recall@1 | MAP@R | mAP |'
    assert lines[2] == '| raw pixels, nearest neighbour (`pixels`) | 1.00 | 1.00 | 1.00 |'
    assert lines[4].endswith('| 33.33 | 33.33 | 33.33 |') and len(lines) == 5
