"""Configs of datasets that are changed so that each image is extracted once."""
from retrieval.retrievers.extraction import (
    cache_file,
    each_image_once,
    extraction_loader,
    with_pipeline,
)

ONE = dict(type='ImageFolder', data_root='a', pipeline=[dict(type='LoadImage')])
OTHER = dict(ONE, data_root='b')
JOINED = dict(type='ConcatDataset', datasets=[ONE, OTHER])
REPEATED = dict(type='retrieval.RepeatDataset', times=3, dataset=dict(
    type='ClassBalancedDataset', oversample_thr=0.1, dataset=JOINED))


def test_a_pipeline_reaches_every_dataset_inside():
    changed = with_pipeline(REPEATED, ['new'])
    assert changed['times'] == 3
    parts = changed['dataset']['dataset']['datasets']
    assert [part['pipeline'] for part in parts] == [['new'], ['new']]
    assert [part['data_root'] for part in parts] == ['a', 'b']
    assert ONE['pipeline'] == [dict(type='LoadImage')]  # what was given stays


def test_an_extraction_sees_each_image_once_in_order():
    assert each_image_once(REPEATED) == JOINED
    loader = extraction_loader(dict(
        batch_size=8, num_workers=3, dataset=REPEATED, batch_sampler=dict(type='Some'),
        sampler=dict(type='DefaultSampler', shuffle=True), drop_last=True), ['plain'])
    assert loader == dict(batch_size=8, num_workers=3, dataset=with_pipeline(JOINED, ['plain']))


def test_files_are_named_by_what_is_extracted(tmp_path):
    names = {cache_file(tmp_path, dict(dataset=data), part).name
             for data in (ONE, OTHER, with_pipeline(ONE, [])) for part in ('pooling', 'projection')}
    assert len(names) == 6
    assert cache_file(tmp_path, dict(dataset=ONE, batch_size=3), 'pooling') == cache_file(
        tmp_path, dict(dataset=dict(ONE)), 'pooling')
