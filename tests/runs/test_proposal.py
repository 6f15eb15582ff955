import pytest

from retrieval.config.reading import read_config
from retrieval.runs.config import load_config
from retrieval.runs.proposal import propose

from ..commands.conftest import draw_classes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures') / 'all'
    draw_classes(folder, classes=8, each=5)
    return folder


def written(tmp_path, text):
    path = tmp_path / 'own.py'
    path.write_text(text)
    return path


def test_a_folder_of_classes(tmp_path, folder):
    made = propose(folder)
    assert (made.seen['classes'], made.seen['pictures']) == (8, 40)
    assert made.seen['pictures_a_class'] == [5, 5, 5] and made.seen['shorter_edge'] == [20, 20, 20]
    assert made.seen['training'] == made.seen['testing'] == dict(pictures=20, classes=4)
    assert len(made.config.splitlines()) <= 12
    config = load_config(written(tmp_path, made.config), work_dir=str(tmp_path))
    assert config.train_dataloader.dataset.data_root == str(folder)
    assert config.train_dataloader.batch_size == 16 and config.train_dataloader.batch_sampler.m == 4
    assert config.model.prototype.dataset.data_root == str(folder)
    assert config.test_dataloader.dataset.pipeline[1].scale == 96  # small pictures


def test_folders_for_training_and_testing(tmp_path):
    draw_classes(tmp_path / 'sets' / 'train', classes=3)
    draw_classes(tmp_path / 'sets' / 'val', classes=2)
    made = propose(tmp_path / 'sets')
    assert made.seen['split'] == 'by its folders' and made.seen['classes_in_both'] == 2
    config = read_config(written(tmp_path, made.config))
    assert config.train_dataloader.dataset.data_root.endswith('/train')
    assert config.gallery_dataloader.dataset.data_root.endswith('/val')
    assert config.test_dataloader.dataset.split is None


def rows(folder):
    return [(path.relative_to(folder.parent), path.parent.name)
            for path in sorted(folder.rglob('*.png'))]


def test_a_table_without_a_split_gets_one_by_class(tmp_path, folder):
    table = folder.parent / 'items.csv'
    table.write_text('Image,class,price\n' + ''.join(
        f'{path},{label},3\n' for path, label in rows(folder)))
    made = propose(table, str(tmp_path / 'own.csv'))
    (tmp_path / 'own.csv').write_text(made.table)
    config = load_config(written(tmp_path, made.config), work_dir=str(tmp_path))
    assert config.train_dataloader.dataset.ann_file == str(tmp_path / 'own.csv')
    assert made.table.splitlines()[0] == 'path,label,price,split'
    halves = {split: {line.split(',')[1] for line in made.table.splitlines() if split in line}
              for split in ('train', 'test')}
    assert len(halves['train']) == len(halves['test']) == 4
    assert not halves['train'] & halves['test']


def test_a_table_that_is_complete_is_used_as_it_is(tmp_path, folder):
    table = folder.parent / 'complete.csv'
    table.write_text('path,label,split\n' + ''.join(
        f'{path},{label},{("train", "validation", "test")[int(label[-1]) % 3]}\n'
        for path, label in rows(folder)))
    made = propose(table, str(tmp_path / 'own.csv'))
    assert made.table is None
    config = read_config(written(tmp_path, made.config))
    assert config.test_dataloader.dataset.ann_file == str(table)
    assert config.test_dataloader.dataset.evaluation_split == 'validation'
    assert config.test_dataloader.dataset.split == 'query'


@pytest.mark.parametrize('text, message', [
    ('a,label\nx,y\n', 'say --path NAME'), ('path,b\nx,y\n', 'say --label NAME')])
def test_columns_that_are_not_clear(tmp_path, text, message):
    (tmp_path / 'table.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        propose(tmp_path / 'table.csv')
    with pytest.raises(ValueError, match="Did you mean 'label'|'path'"):
        propose(tmp_path / 'table.csv', '', 'lable' if 'label' in text else 'pth')


def test_too_few_classes(tmp_path):
    draw_classes(tmp_path / 'two', classes=2)
    with pytest.raises(ValueError, match='1 training classes of at most 5 pictures'):
        propose(tmp_path / 'two')
    with pytest.raises(FileNotFoundError):
        propose(tmp_path / 'none')


def test_a_table_away_from_its_pictures(tmp_path, folder):
    rows = [f'{path.relative_to(folder)},{path.parent.name}' for path in folder.glob('*/*.png')]
    (tmp_path / 'table.csv').write_text('\n'.join(['path,label', *rows]))
    with pytest.raises(FileNotFoundError, match='relative paths start at data_root'):
        propose(tmp_path / 'table.csv')
    made = propose(tmp_path / 'table.csv', str(tmp_path / 'own.csv'), data_root=folder)
    assert made.seen['pictures'] == 40 and f'{str(folder)!r}' in made.config
    with pytest.raises(ValueError, match='--data-root are for a table'):
        propose(folder, data_root=folder)
