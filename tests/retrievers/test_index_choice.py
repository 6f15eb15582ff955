"""The index that a config names is the one that is searched, through MMEngine's Runner."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from retrieval.index import ExactIndex, FaissIndex, gallery_digest

from ..hooks.running import config


def run_test(work_dir, index):
    """The figures of a test run, what was found for every picture, and the retriever."""
    torch.manual_seed(3)
    settings = config(work_dir)
    settings['model']['index'] = index
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        settings.pop(part)
    runner = Runner.from_cfg(Config(settings))
    figures = runner.test()
    model = runner.model
    with torch.no_grad():
        found = [sample.pred_label.tolist() for batch in runner.test_dataloader
                 for sample in model.test_step(batch)]
    return figures, found, model


@pytest.mark.parametrize('index', [
    dict(type='retrieval.FaissIndex', factory='IVF16,Flat', search_parameters=dict(nprobe=16)),
    dict(type='FaissIndex', factory='HNSW8'),
    dict(type='retrieval.FaissIndex', factory='IVF4,SQ8', rescore=True, rescore_dtype='float32',
         rescore_factor=5, search_parameters=dict(nprobe=4)),
])
def test_a_runner_searches_the_index_of_the_config(index, tmp_path, monkeypatch):
    searched = []
    plain = FaissIndex.search
    monkeypatch.setattr(FaissIndex, 'search', lambda self, *a, **k: (
        searched.append(self.factory), plain(self, *a, **k))[1])
    exact, wanted, _ = run_test(tmp_path / 'exact', dict(type='retrieval.ExactIndex'))
    assert searched == []
    figures, found, model = run_test(tmp_path / 'faiss', index)
    assert set(searched) == {index['factory']} and isinstance(model.holder.index, FaissIndex)
    assert found == wanted and figures == exact
    assert list(model.holder.index.ids) == list(model.gallery.ids)
    assert len(found) == 23 and all(len(row) == 5 for row in found)
    assert all(row not in hits for row, hits in enumerate(found)), 'a picture found itself'


@pytest.mark.slow
def test_a_runner_opens_an_index_file(tmp_path):
    _, wanted, model = run_test(tmp_path / 'exact', dict(type='retrieval.ExactIndex'))
    gallery, weights = model.gallery, model.state_dict()
    for index in (ExactIndex(), FaissIndex('HNSW8')):
        index.add(gallery.embeddings, gallery.ids)
        index.gallery_digest = gallery_digest(gallery.embeddings, gallery.ids)
        index.save(tmp_path / 'x.index')
        opened = dict(type=type(index).__name__, path=str(tmp_path / 'x.index'))
        _, found, reader = run_test(tmp_path / 'opened', opened)
        assert found == wanted and type(reader.holder.index) is type(index)
    with torch.no_grad():
        reader.image_encoder.layers[1].weight.add_(0.01)
    with pytest.raises(ValueError, match='belongs to another gallery'):
        reader.prepare_prototype()
    reader.load_state_dict(weights)
    reader.prepare_prototype()
