"""Training behind a frozen encoder, against plain loops."""
import numpy as np
import pytest
import torch
from mmengine.config import Config

from retrieval.gallery import Gallery
from retrieval.runs.feature_training import evaluate, set_projection, train
from retrieval.runs.features import FeatureSets

from ..commands.conftest import run


def test_joined_datasets_and_a_classifier(config, folder, tmp_path):
    """Joined training sets, a class sampler, soft labels; other hooks are left out."""
    text = config.read_text() + f'''
one = dict(type='ImageFolder', data_root={str(folder)!r}, pipeline=test_pipeline)
parts = [dict(one, indices=list(range(first, 20, 2))) for first in (0, 1)]
train_dataloader = dict(
    batch_size=8, dataset=dict(type='ConcatDataset', datasets=parts),
    sampler=dict(type='MPerClassSampler', batch_size=8, m=2))
model.update(
    data_preprocessor=dict(mean=[127.5] * 3, std=[60.0] * 3, to_onehot=True, num_classes=8),
    head=dict(type='ClassificationHead', num_classes=8, in_features=8))
custom_hooks = [dict(type='EMAHook')]
'''
    path = tmp_path / 'joined.py'
    path.write_text(text)
    status, printed, err = run('train_on_embeddings', path, '--out', tmp_path / 'o.pth',
                               '--work-dir', tmp_path / 'w', '--epochs', '2', '--init', 'random')
    assert status == 0, err
    assert '20 x 8 features' in printed
    state = torch.load(tmp_path / 'o.pth', weights_only=True)['state_dict']
    assert 'head.fc.weight' in state


def test_the_training_equals_a_plain_loop(config, tmp_path):
    """One class-balanced step of gradient descent at a time, on the same features."""
    from retrieval.retrievers import build_retriever
    from retrieval.runs.config import load_config
    loaded = load_config(config, {
        'train_dataloader.batch_size': 20, 'train_cfg.max_epochs': 3,
        'optim_wrapper.optimizer': dict(type='SGD', lr=0.5)}, str(tmp_path))
    loaded.model.head = dict(type='ClassificationHead', num_classes=4, in_features=8)
    model = build_retriever(loaded).cpu()
    sets = FeatureSets(model, loaded, tmp_path)
    start = {name: value.clone() for name, value in model.state_dict().items()
             if name.startswith(('image_encoder.projection.', 'head.'))}
    found = train(sets.config, start)

    names = ['image_encoder.projection.linear.weight', 'image_encoder.projection.linear.bias',
             'head.fc.weight', 'head.fc.bias']
    weights = [start[name].clone().requires_grad_() for name in names]
    features, labels = sets.training.embeddings.clone(), sets.training.labels
    for _ in range(3):
        embeddings = torch.nn.functional.normalize(features @ weights[0].T + weights[1])
        loss = torch.nn.functional.cross_entropy(embeddings @ weights[2].T + weights[3], labels)
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.5 * slope
    for name, weight in zip(names, weights, strict=True):
        torch.testing.assert_close(found[name], weight.detach(), atol=1e-5, rtol=1e-4)
    assert evaluate(sets.config, found)['embedding/Recall@1'] <= 100


def test_a_projection_tells_the_losses_its_width():
    config = Config(dict(model=dict(image_encoder=dict(projection=64), head=dict(
        loss=[dict(type='A', embedding_size=64), dict(type='B')]))))
    set_projection(config, 16, None)
    assert config.model.image_encoder.projection == dict(out_features=16)
    assert config.model.head.loss == [dict(type='A', embedding_size=16), dict(type='B')]


def test_nothing_to_train(config, tmp_path):
    from retrieval.retrievers import build_retriever
    from retrieval.runs.config import load_config
    loaded = load_config(config, None, str(tmp_path))
    loaded.model.image_encoder.projection = None
    loaded.model.head = dict(type='MetricHead', loss=dict(type='PML.TripletMarginLoss'))
    sets = FeatureSets(build_retriever(loaded).cpu(), loaded, tmp_path)
    with pytest.raises(ValueError, match='--projection'):
        train(sets.config, {})
    assert isinstance(sets.training, Gallery) and np.isfinite(sets.training.embeddings).all()
