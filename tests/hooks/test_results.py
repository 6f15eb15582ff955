"""What hooks write of results, with a runner that has only what they look at."""
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from retrieval.gallery import Gallery
from retrieval.hooks.results import (
    RankingDrawingHook,
    RecordPredictionsHook,
    caption,
    is_relevant,
    prototype_dataset,
    ranking_rows,
)
from retrieval.structures import RetrievalDataSample
from retrieval.visualization import Pictures

GALLERY = Gallery(np.eye(3), ['x/a.png', 'x/b.png', 'x/c.png'], labels=[0, 1, 1],
                  label_names=['cat', 'dog'])


def sample(number, rows=(2, 0), scores=(0.9, 0.1234567), label=1):
    made = RetrievalDataSample(metainfo=dict(sample_id=f'q/{number}.png', sample_idx=number,
                                             img_path=f'q/{number}.png'))
    if label is not None:
        made.set_gt_label(label)
    return made.set_pred_label(rows).set_pred_score(scores)


def runner(batches=1, prototype=None, gallery=GALLERY):
    return SimpleNamespace(
        model=SimpleNamespace(gallery=gallery, prototype=prototype),
        test_dataloader=type('Loader', (), dict(dataset=None, __len__=lambda self: batches))(),
        logger=logging.getLogger('nowhere'))


def test_predictions_stand_in_the_order_of_the_dataset_once(tmp_path):
    hook, running = RecordPredictionsHook(str(tmp_path / 'out.json')), runner()
    hook.before_test_epoch(running)
    hook.after_test_iter(running, 0, outputs=[sample(9)])
    hook.before_test_epoch(running)  # what an earlier epoch left is forgotten
    hook.after_test_iter(running, 0, outputs=[sample(2), sample(0, label=None)])
    hook.after_test_iter(running, 1, outputs=[sample(1), sample(2)])  # padded by a sampler
    hook.after_test_epoch(running)
    entries = json.loads((tmp_path / 'out.json').read_text())
    assert [entry['sample_id'] for entry in entries] == [f'q/{row}.png' for row in range(3)]
    assert entries[1] == dict(sample_id='q/1.png', img_path='q/1.png', gt_label=[1],
                              pred_label=[2, 0], pred_id=['x/c.png', 'x/a.png'],
                              pred_score=[0.9, 0.123457])
    assert entries[0]['gt_label'] is None


@pytest.mark.parametrize(('batches', 'size', 'wanted'), [
    (8, 1, [0, 2, 4, 6]), (1, 8, [0, 2, 4, 6]), (2, 4, [0, 2, 4, 6]), (2, 1, [0, 1])])
def test_queries_that_are_drawn_are_spread_over_the_set(batches, size, wanted, tmp_path,
                                                        monkeypatch):
    drawn = []
    monkeypatch.setattr('retrieval.hooks.results.draw_ranking_grid',
                        lambda rows, path, columns: drawn.append((rows, path, columns)))
    hook, running = RankingDrawingHook(str(tmp_path / 'show'), number=4, columns=1), runner(batches)
    hook.before_test_epoch(running)
    for number in range(batches):
        hook.after_test_iter(running, number, outputs=[
            sample(size * number + place) for place in range(size)])
    hook.after_test_epoch(running)
    (rows, path, columns), = drawn
    assert [title for (_, title), _ in rows] == [f'{number}.png' for number in wanted]
    assert path == tmp_path / 'show' / 'rankings.png' and columns == 1
    assert all(len(results) == 1 for _, results in rows)


def test_nothing_is_drawn_of_nothing(tmp_path):
    hook = RankingDrawingHook(str(tmp_path / 'show'))
    hook.before_test_epoch(runner())
    hook.after_test_epoch(runner())
    assert not (tmp_path / 'show').exists()


def test_a_row_is_a_query_and_its_results(tmp_path):
    path = str(tmp_path / 'a.png')
    Image.new('RGB', (4, 4), 'red').save(path)
    gallery = Gallery(np.eye(2), [path, 'gone.png'], labels=[1, 0])
    ((asked, title), results), = ranking_rows([sample(7, [1, 0], [0.5, 0.25])], gallery,
                                              Pictures([]), 10)
    assert asked is None and title == '7.png'
    assert [row[1:] for row in results] == [(0.5, False, '0'), (0.25, True, '1')]
    assert results[0][0] is None and results[1][0].getpixel((0, 0)) == (255, 0, 0)


def test_what_is_relevant():
    assert is_relevant(sample(0, label=1), 2, GALLERY) is True
    assert is_relevant(sample(0, label=1), 0, GALLERY) is False
    assert is_relevant(sample(0, label=None), 0, GALLERY) is None
    assert is_relevant(sample(0), 0, Gallery(np.eye(1), ['a'])) is None
    named = sample(0, label=1).set_gt_indices([0])  # the dataset says it, whatever the class
    assert is_relevant(named, 0, GALLERY) and not is_relevant(named, 2, GALLERY)


def test_captions_are_classes_or_names_of_files():
    assert caption(GALLERY, 1) == 'dog' and caption(Gallery(np.eye(1), ['x/a.png']), 0) == 'a.png'


def test_the_dataset_of_a_prototype():
    dataset = torch.utils.data.TensorDataset(torch.eye(2))
    assert prototype_dataset(SimpleNamespace(prototype=DataLoader(dataset))) is dataset
    assert prototype_dataset(SimpleNamespace(prototype=dict(dataset=dataset))) is dataset
    built = prototype_dataset(SimpleNamespace(prototype=dict(dataset=dict(
        type='retrieval.ImageList', images=[np.zeros((2, 2, 3), np.uint8)], pipeline=[]))))
    assert len(built) == 1
    assert prototype_dataset(SimpleNamespace(prototype=GALLERY)) is None
