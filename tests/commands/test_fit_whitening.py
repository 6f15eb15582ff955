import numpy as np
import pytest
import torch
from mmengine.config import Config

from retrieval.gallery import Gallery

from .conftest import run


def dump(config, checkpoint, path):
    status, _, err = run('dump_prototype', config, checkpoint, path)
    assert status == 0, err
    return Gallery.load(path)


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    return tmp_path_factory.mktemp('whitening')


def fit(config, checkpoint, work, out, *more):
    status, printed, err = run('fit_whitening', config, checkpoint, out, '--work-dir', work, *more)
    assert status == 0, err
    return printed


@pytest.mark.parametrize('method, dim', [('pca', 4), ('learned', 5), ('zca', 8)])
def test_the_checkpoint_whitens_by_the_training_set(config, checkpoint, gallery, work, tmp_path,
                                                    method, dim):
    from retrieval.encoders import fit_whitening
    out = tmp_path / 'white.pth'
    printed = fit(config, checkpoint, work, out, '--method', method, '--dim', dim, '--shrinkage',
                  '0.05')
    assert f'{method} whitening of 8 to {dim}, fitted to 20 embeddings' in printed
    training = Gallery.load(next(work.glob('projection-*.safetensors')))
    expected = fit_whitening(training.embeddings, method, dim=dim, shrinkage=0.05,
                             labels=training.labels if method == 'learned' else None)
    white = dump(tmp_path / 'white.config.py', out, tmp_path / 'g.safetensors')
    plain = Gallery.load(gallery).embeddings.double().numpy()
    by_hand = (plain - expected.mean) @ expected.projection.T
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(white.embeddings.numpy(), by_hand, atol=2e-4)
    status, found, err = run('search', tmp_path / 'g.safetensors', list(white.ids)[0])
    assert status == 0 and 'png' in found, err
    if method != 'pca':
        return
    # neither gallery is searched by the other's model
    for name, model in ((gallery, (tmp_path / 'white.config.py', out)),
                        (tmp_path / 'g.safetensors', (config, checkpoint))):
        status, _, err = run('test', *model, '--work-dir', tmp_path / 'w', '--cfg-options',
                             f'model.prototype={name}')
        assert status == 2 and 'weights' in err and 'whitening' in err


def test_a_config_with_the_place_for_it(config, checkpoint, work, tmp_path):
    """Its checkpoint does not have the whitening before it is fitted, and then keeps its width."""
    text = config.read_text().replace("type='ImageEncoder',", "type='ImageEncoder', whitening=3,")
    (tmp_path / 'with.py').write_text(text)
    status, _, err = run('test', tmp_path / 'with.py', checkpoint, '--work-dir', tmp_path)
    assert status == 2 and 'image_encoder.whitening' in err
    out = tmp_path / 'white.pth'
    fit(tmp_path / 'with.py', checkpoint, work, out)
    state = torch.load(out, weights_only=True)['state_dict']
    assert state['image_encoder.whitening.projection'].shape == (3, 8)
    assert state['image_encoder.whitening.fitted']
    again = fit(tmp_path / 'with.py', out, work, tmp_path / 'again.pth')  # its own result
    assert 'as they were before' in again
    status, _, err = run('test', tmp_path / 'with.py', out, '--work-dir', tmp_path)
    assert status == 0, err


def test_given_embeddings(config, checkpoint, gallery, tmp_path):
    out = tmp_path / 'white.pth'
    printed = fit(config, checkpoint, tmp_path, out, '--embeddings', gallery, '--dim', 2,
                  '--method', 'learned', '--shrinkage', '0.1')
    assert 'features in' not in printed and 'fitted to 20' in printed
    assert Config.fromfile(tmp_path / 'white.config.py').model.image_encoder.whitening == dict(
        in_features=8, out_features=2)
    np.save(tmp_path / 'rows.npy', np.random.default_rng(0).normal(size=(30, 8)).astype('float32'))
    fit(config, checkpoint, tmp_path, out, '--embeddings', tmp_path / 'rows.npy')
    for file, method, says in ((tmp_path / 'rows.npy', 'learned', 'class of every embedding'),
                               (gallery, 'pcaa', "'pca'"), (tmp_path / 'no.npy', 'pca', 'no.npy')):
        status, _, err = run('fit_whitening', config, checkpoint, out, '--embeddings', file,
                             '--method', method)
        assert status == 2 and says in err
    other = Gallery.load(gallery)
    from retrieval.gallery import Fingerprint
    other.fingerprint = Fingerprint(weights='another')
    other.save(tmp_path / 'other.safetensors')
    status, _, err = run('fit_whitening', config, checkpoint, out, '--embeddings',
                         tmp_path / 'other.safetensors')
    assert status == 2 and 'not made by this model' in err


def test_bad_input(config, checkpoint, tmp_path):
    status, _, err = run('fit_whitening', config, checkpoint, 'white.safetensors')
    assert status == 2 and '.pth' in err
    status, _, err = run('fit_whitening', config, checkpoint, tmp_path / 'o.pth', '--cfg-options',
                         'train_dataloader=None')
    assert status == 2 and '--embeddings' in err
    text = config.read_text().replace("type='ImageEncoder',",
                                      "type='ImageEncoder', whitening=dict(type='Projection'),")
    (tmp_path / 'foreign.py').write_text(text)
    status, _, err = run('fit_whitening', tmp_path / 'foreign.py', checkpoint, tmp_path / 'o.pth')
    assert status == 2 and "type='Whitening'" in err
