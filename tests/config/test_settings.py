"""A misspelt key is refused wherever it stands; what types take is what they are built with."""
from pathlib import Path

import pytest
from mmengine.config import Config

from retrieval.config.options import merge_options, read_value
from retrieval.config.own_names import check_own_names
from retrieval.config.reading import read_config
from retrieval.config.settings import check_settings, computed_metrics

from ..commands.conftest import run

ROOT = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts)
GLYPHS = ROOT / 'arcface' / 'resnet10-arcface_4e_glyphs.py'


def test_every_shipped_config_passes():
    assert len(LEAVES) >= 85
    for path in LEAVES:
        config = read_config(path)
        check_own_names(config)
        check_settings(config)


def changed(option):
    config = read_config(GLYPHS)
    key, _, value = option.partition('=')
    merge_options(config, {key: read_value(value)})
    return config


@pytest.mark.parametrize('option, near', [
    ('model.topkk=3', 'topk'), ('model.image_encoder.poolling.type=GeM', 'pooling'),
    ('model.image_encoder.projection=dict(outfeatures=3)', 'out_features'),
    ('model.image_encoder.backbone.pretraned=True', 'pretrained'),
    ('model.image_encoder.multi_scale=dict(scale=[1])', 'scales'),
    ('model.data_preprocessor.meen=3', 'mean'), ('data_preprocessor.stdd=3', 'std'),
    ('model.head.los.margin=3', 'loss'), ('model.head.loss.margn=3', 'margin'),
    ("model.head.loss.distance=dict(type='LpDistance', pp=1)", 'p'),
    ('model.index=dict(type="FaissIndex", factry="Flat")', 'factory'),
    ("model.rerank=[dict(type='KReciprocal', k=3, k11=2)]", 'k1'),
    ('model.train_cfg.augment=1', 'augments'), ('model.prototype.batchsize=3', 'batch_size'),
    ('train_dataloader.batchsize=3', 'batch_size'),
    ('train_dataloader.dataset.splitt=x', 'split'),
    ('gallery_dataloader.dataset.spilt=x', 'split'),
    ('train_dataloader.sampler.shufle=True', 'shuffle'),
    ('train_dataloader.dataset.pipeline.0.colour=gray', 'color'),
    ("train_dataloader.dataset.pipeline.0=dict(type='torchvision/RandomApply', p=0.3, "
     "transforms=[dict(type='RandomGrayscale', pp=0.3)])", 'p'),
    ('default_hooks.chekpoint.interval=3', 'checkpoint'),
    ('default_hooks.checkpoint.intervall=3', 'interval'),
    ("custom_hooks=[dict(type='EMAHook', momentm=0.1)]", 'momentum'),
    ('train_cfg.max_epoch=3', 'max_epochs'), ('val_cfg.fp=1', 'fp16'),
    ('optim_wrapper.optimzer.lr=1', 'optimizer'), ('optim_wrapper.optimizer.lrr=1', 'lr'),
    ('optim_wrapper.clip_grad.max_nrm=1', 'max_norm'),
    ('optim_wrapper.paramwise_cfg.norm_decay=0', 'norm_decay_mult'),
    ('optim_wrapper.paramwise_cfg.custom_keys.head.lr_mul=0', 'lr_mult'),
    ('param_scheduler.0.eta_maxx=1', 'eta_max'), ('val_evaluator.metrcs=[mAP]', 'metrics'),
    ('test_evaluator.1.topkk=3', 'topk'), ('visualizer.vis_backend=[]', 'vis_backends'),
    ('visualizer.vis_backends.0.save_dirr=x', 'save_dir'), ('env_cfg.cudnn_bench=1', 'cudnn_ben'),
    ('env_cfg.dist_cfg.backendd=gloo', 'backend'), ('env_cfg.mp_cfg.start=1', 'mp_start_method'),
    ('randomness.sed=1', 'seed'), ('auto_scale_lr.enabled=True', 'enable'),
    ('compile.fullgrph=True', 'fullgraph'), ('log_processor.windowsize=3', 'window_size'),
    ('model_wrapper_cfg.find_unused=1', 'find_unused_parameters'),
    ('train_dataloader.sampler.type=MPerClas', 'MPerClassSampler'),
    ('default_hooks.checkpoint.rule=greatest', 'greater'),
    ('default_hooks.checkpoint.save_best=embedding/Recal@1', 'embedding/Recall@1'),
    ("custom_hooks=[dict(type='EarlyStoppingHook', monitor='search/Recall@1')]",
     'embedding/Recall@1')])
def test_a_misspelt_key_names_the_nearest(option, near):
    with pytest.raises(ValueError, match=f"Did you mean .*'{near}"):
        check_settings(changed(option))


@pytest.mark.parametrize('option', [
    "custom_hooks=[dict(type='EMAHook', momentum=0.1, priority=49)]",
    'default_hooks.mine=dict(type="RankingDrawingHook", out_dir="x")',
    'model.image_encoder.backbone.stem_type=deep', 'default_hooks.checkpoint.save_best=auto',
    "model.head.loss=[dict(type='PML.ContrastiveLoss', loss_weight=2, name='pairs')]",
    "model.image_encoder.backbone=dict(type='HuggingFaceBackbone', model_name='x', "
    "rope_scaling=dict(type='linear', factor=2))",
    "optim_wrapper=dict(constructor='Mine', anything=1, optimizer=dict(type='SGD', lr=1))"])
def test_what_is_right_or_cannot_be_told_is_left_alone(option):
    check_settings(changed(option))


def test_a_config_of_mmpretrain_passes():
    """The keys of its retrieval configs; where it is not installed its types are not looked at."""
    loader = dict(batch_size=32, num_workers=4, persistent_workers=True, sampler=dict(
        type='DefaultSampler', shuffle=False), dataset=dict(
            type='InShop', data_root='data/inshop', split='query', pipeline=[
                dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=512),
                dict(type='CenterCrop', crop_size=448), dict(type='PackInputs')]))
    metrics = [dict(type='RetrievalRecall', topk=1), dict(type='RetrievalAveragePrecision',
                                                          topk=10)]
    config = Config(dict(
        default_scope='mmpretrain', dataset_type='InShop', pretrained='weights.pth',
        data_preprocessor=dict(num_classes=3997, mean=[1.], std=[2.], to_rgb=True),
        train_pipeline=[], test_pipeline=[], file_client_args=dict(backend='disk'),
        model=dict(type='ImageToImageRetriever', prototype=loader, image_encoder=[
            dict(type='ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint='x')),
            dict(type='GlobalAveragePooling')],
            head=dict(type='ArcFaceClsHead', num_classes=3997, in_channels=2048,
                      loss=dict(type='CrossEntropyLoss', loss_weight=1.0), init_cfg=None)),
        train_dataloader=loader, query_dataloader=loader, gallery_dataloader=loader,
        val_dataloader=loader, test_dataloader=loader, val_evaluator=metrics,
        test_evaluator=metrics, train_cfg=dict(by_epoch=True, max_epochs=100, val_interval=1),
        val_cfg=dict(), test_cfg=dict(), auto_scale_lr=dict(base_batch_size=256),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100)],
        default_hooks=dict(visualization=dict(type='VisualizationHook', enable=False),
                           checkpoint=dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='PrepareProtoBeforeValLoopHook'), dict(type='SyncBuffersHook')]))
    check_own_names(config)
    check_settings(config)


def test_metrics_say_what_they_compute():
    names = computed_metrics([dict(type='EmbeddingMetrics', protocol='RevisitedOxford'),
                              dict(type='RetrievalRecall', topk=(1, 10), prefix='mine')])
    assert 'embedding/medium/mAP-trapezoid' in names or 'embedding/medium/mAP' in names
    assert 'mine/Recall@10' in names
    assert computed_metrics(dict(type='DumpResults', out_file_path='x.pkl')) is None


@pytest.mark.parametrize('command', [
    ['train', GLYPHS], ['test', GLYPHS, 'none.pth'], ['print_config', GLYPHS],
    ['browse_dataset', GLYPHS], ['dump_prototype', GLYPHS, 'none.pth', 'out.gallery'],
    ['train_on_embeddings', GLYPHS, '--out', 'out.pth'],
    ['fit_whitening', GLYPHS, 'none.pth', 'out.pth'], ['demo', '--config', GLYPHS]])
def test_every_command_refuses_before_it_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*command, '--cfg-options', 'optim_wraper.optimizer.lr=1')
    assert status == 2 and "Did you mean 'optim_wrapper'" in err and 'Traceback' not in err
    assert not list(tmp_path.iterdir())


def test_python_refuses_too():
    from retrieval import build_retriever
    with pytest.raises(ValueError, match="Did you mean 'topk'"):
        build_retriever(dict(type='ImageToImageRetriever', topkk=3))
