import numpy as np
import pytest

from retrieval.commands.folder_config import _classes_for_a_batch, folder_config

from .conftest import draw_classes


@pytest.mark.parametrize('sizes, expected', [
    ([5] * 50, (32, 4)), ([3, 3, 2], (3, 3)), ([1, 1, 9], (3, 2))])
def test_batches_fit_the_classes(sizes, expected):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    assert _classes_for_a_batch(labels) == expected


def test_the_config_of_a_folder(tmp_path):
    draw_classes(tmp_path / 'own', classes=6, each=2)
    config = folder_config(tmp_path / 'own')
    assert config.train_dataloader.batch_size == 6 and config.train_dataloader.batch_sampler.m == 2
    assert config.model.image_encoder.projection == 128
    assert config.model.prototype.dataset.split == config.val_dataloader.dataset.split == 'test'


def test_folders_that_cannot_be_learned_from(tmp_path):
    draw_classes(tmp_path / 'few', classes=2, each=3)
    with pytest.raises(ValueError, match='at least two classes'):
        folder_config(tmp_path / 'few')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no images'):
        folder_config(tmp_path / 'empty')
