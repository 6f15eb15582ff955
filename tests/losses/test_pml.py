import importlib
import inspect
import pkgutil

import pytest
import pytorch_metric_learning
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import nn

from retrieval.losses.pml import build_component
from retrieval.registry import MODELS, PML, UnknownTypeError


def classes_of_the_library():
    """Every module class that a file of the library defines and its package exports."""
    found = {}
    for part in (losses, miners, distances, reducers, regularizers):
        for info in pkgutil.iter_modules(part.__path__):
            module = importlib.import_module(f'{part.__name__}.{info.name}')
            for name, value in vars(module).items():
                if (inspect.isclass(value) and issubclass(value, nn.Module)
                        and value.__module__ == module.__name__):
                    found[name] = value
    return found


def test_every_class_of_the_installed_release_is_registered():
    library = classes_of_the_library()
    assert len(library) >= 60
    for name, cls in library.items():
        factory = MODELS.get(f'PML.{name}')
        assert factory.cls is cls, name
        assert factory.__name__ == name and factory.__doc__ == cls.__doc__
        assert ROOT.get(f'PML.{name}') is factory and PML.get(name) is factory
    others = set(PML.module_dict) - set(library)
    assert others == {'EmbeddingRegularizerMixin', 'WeightRegularizerMixin', 'TorchInitWrapper',
                      'DistributedLossWrapper', 'DistributedMinerWrapper'}
    assert pytorch_metric_learning.__version__


@pytest.mark.parametrize('prefix', ['PML.', ''])
def test_nested_configs_become_objects(prefix):
    loss = MODELS.build(dict(
        type='PML.TripletMarginLoss', margin=0.2,
        distance=dict(type=f'{prefix}LpDistance', p=1, normalize_embeddings=False),
        reducer=dict(type=f'{prefix}ThresholdReducer', low=0.1),
        embedding_regularizer=dict(type=f'{prefix}LpRegularizer', p=3)))
    assert isinstance(loss, losses.TripletMarginLoss) and loss.margin == 0.2
    assert isinstance(loss.distance, distances.LpDistance) and loss.distance.p == 1
    assert not loss.distance.normalize_embeddings
    assert isinstance(loss.reducer.reducers['loss'], reducers.ThresholdReducer)
    assert isinstance(loss.embedding_regularizer, regularizers.LpRegularizer)


@pytest.mark.parametrize('registry', [MODELS, ROOT, PML])
@pytest.mark.parametrize('scope', [None, 'mmengine', 'retrieval', 'PML'])
def test_wrappers_build_their_losses_from_any_scope(registry, scope):
    cfg = Config(dict(loss=dict(
        type='PML.CrossBatchMemory', embedding_size=8, memory_size=32,
        loss=dict(type='PML.ContrastiveLoss', distance=dict(type='PML.CosineSimilarity'),
                  pos_margin=1, neg_margin=0),
        miner=dict(type='MultiSimilarityMiner', epsilon=0.2)))).loss
    with DefaultScope.overwrite_default_scope(scope):
        memory = registry.build(cfg)
    assert isinstance(memory.loss.distance, distances.CosineSimilarity)
    assert isinstance(memory.miner, miners.MultiSimilarityMiner) and memory.miner.epsilon == 0.2
    assert memory.embedding_memory.shape == (32, 8)


def test_lists_and_dicts_of_configs():
    listed = MODELS.build(dict(type='PML.MultipleLosses', weights=[1, 0.5], losses=[
        dict(type='PML.TripletMarginLoss'),
        dict(type='PML.ContrastiveLoss', distance=dict(type='SNRDistance'))]))
    assert isinstance(listed.losses[1].distance, distances.SNRDistance)
    named = MODELS.build(dict(
        type='PML.MultipleLosses', weights=dict(a=1, b=2),
        losses=dict(a=dict(type='PML.NTXentLoss'), b=dict(type='CircleLoss')),
        miners=dict(a=dict(type='BatchHardMiner'))))
    assert isinstance(named.losses['b'], losses.CircleLoss) and named.weights == dict(a=1, b=2)
    assert isinstance(named.miners['a'], miners.BatchHardMiner)


def test_objects_and_classes_may_stand_for_configs():
    distance = distances.CosineSimilarity()
    loss = build_component(dict(type=losses.ContrastiveLoss, distance=distance,
                                reducer=dict(type=reducers.SumReducer)))
    assert loss.distance is distance
    assert isinstance(loss.reducer.reducers['pos_loss'], reducers.SumReducer)
    assert build_component(distance) is distance


@MODELS.register_module()
class OwnDistance(distances.CosineSimilarity):
    """A part of somebody else's, in the project's registry."""


def test_parts_of_other_registries_nest_too():
    loss = MODELS.build(dict(type='PML.ContrastiveLoss', pos_margin=1, neg_margin=0,
                             distance=dict(type='retrieval.OwnDistance')))
    assert isinstance(loss.distance, OwnDistance)


def test_weights_start_as_the_config_says():
    loss = MODELS.build(dict(
        type='PML.ArcFaceLoss', num_classes=4, embedding_size=8,
        weight_init_func=dict(type='TorchInitWrapper', init_func='uniform_', a=2, b=3)))
    assert 2 <= loss.W.min() < loss.W.max() <= 3
    with pytest.raises(ValueError, match='uniform_'):
        MODELS.build(dict(type='PML.TorchInitWrapper', init_func='uniform'))


def test_class_weights_may_be_a_list():
    reducer = MODELS.build(dict(type='PML.ClassWeightedReducer', weights=[1, 2, 0.5]))
    assert torch.equal(reducer.weights, torch.tensor([1, 2, 0.5]))


@pytest.mark.parametrize('cfg', [
    dict(type='PML.ArcFaceLos', num_classes=3, embedding_size=2),
    dict(type='PML.ContrastiveLoss', reducer=dict(type='PML.ArcFaceLos')),
    dict(type='PML.ContrastiveLoss', reducer=dict(type='ArcFaceLos')),
])
def test_a_wrong_name_lists_the_nearest(cfg):
    with pytest.raises(UnknownTypeError, match="'ArcFaceLos'.*Did you mean 'ArcFaceLoss'"):
        MODELS.build(cfg)
    with pytest.raises(ValueError):
        MODELS.build(cfg)


@pytest.mark.parametrize('cfg, error, says', [
    (dict(type='PML.ArcFaceLoss'), TypeError, "'num_classes'.*It takes: num_classes"),
    (dict(type='PML.SubCenterArcFaceLoss', embedding_size=2), TypeError,
     "'num_classes' is missing.*sub_centers=3"),
    (dict(type='PML.TripletMarginLoss', margn=1), TypeError, "mean 'margin'.*margin=0.05"),
    (dict(type='PML.MeanReducer', low=0), TypeError, "no argument 'low'"),
    (dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=2,
          distance=dict(type='LpDistance')), ValueError, 'CosineSimilarity'),
    (dict(type='PML.CrossBatchMemory', embedding_size=2, loss=dict(
        type='ArcFaceLoss', num_classes=3, embedding_size=2)), ValueError, 'not supported'),
    (dict(type='PML.ThresholdReducer'), ValueError, 'low or high'),
    (dict(type='PML.ContrastiveLoss', reducer=dict(type=3)), TypeError, 'name or a class'),
])
def test_wrong_arguments_list_what_is_valid(cfg, error, says):
    with pytest.raises(error, match=says):
        MODELS.build(cfg)
