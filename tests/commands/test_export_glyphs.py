import csv

import numpy as np
import pytest

from retrieval.commands import export_glyphs
from retrieval.datasets import CSVDataset, Glyphs, ImageFolder

from ..datasets.few_fonts import use_few_fonts


@pytest.fixture(autouse=True)
def few_fonts(monkeypatch):
    use_few_fonts(monkeypatch)


@pytest.fixture
def exported(tmp_path):
    export_glyphs.main([str(tmp_path / 'out'), '--data-root', str(tmp_path / 'cache')])
    return tmp_path / 'out'


def test_the_csv_reads_back_the_same_images(exported, tmp_path, capsys):
    for split in ('train', 'test'):
        glyphs = Glyphs(split, data_root=tmp_path / 'cache')
        read = CSVDataset(str(exported / 'glyphs.csv'), split=split,
                          pipeline=[dict(type='LoadImage', color='gray')])
        assert len(read) == len(glyphs) and len(read.label_names) == len(glyphs.label_names)
        # labels may count differently, the same images belong together
        pairs = set(zip(read.labels.tolist(), glyphs.labels.tolist(), strict=True))
        assert len(pairs) == len(glyphs.label_names)
        for row in range(0, len(glyphs), 7):
            assert np.array_equal(read[row]['img'], glyphs.get_data_info(row)['img'])
    assert len(CSVDataset(str(exported / 'glyphs.csv'), split='query')) == len(read)


def test_a_folder_is_a_class(exported, tmp_path):
    glyphs = Glyphs('train', data_root=tmp_path / 'cache')
    folder = ImageFolder(str(exported / 'train'))
    names = [export_glyphs.folder_name(name) for name in glyphs.label_names]
    assert sorted(names) == sorted(folder.label_names)
    assert np.array_equal(np.sort(np.bincount(folder.labels)), np.sort(np.bincount(glyphs.labels)))


def test_names_are_safe_everywhere(exported):
    for path in exported.rglob('*'):
        assert path.name.isascii() and not set(path.name) & set('<>:"|?*+\\ ')
    names = [str(path).lower() for path in exported.rglob('*')]
    assert len(set(names)) == len(names)
    assert export_glyphs.folder_name('A\u0391\U0001d7d8') == 'U0041-U0391-U1D7D8'


def test_the_list_says_where_images_come_from(exported):
    with (exported / 'glyphs.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(export_glyphs.COLUMNS)
    assert {row['split'] for row in rows} == {'train', 'test'}
    for row in rows:
        assert row['is_query'] == row['is_gallery'] == str(row['split'] == 'test')
        assert row['label'] == row['path'].split('/')[1]
        assert f'U{ord(row["character"]):04X}' in row['label']


def test_one_split_at_a_size_into_an_empty_folder(tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    export_glyphs.main([str(tmp_path / 'out'), '--data-root', str(tmp_path / 'cache'),
                        '--split', 'test', '--size', '16'])
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['glyphs.csv', 'test']
    images = ImageFolder(str(tmp_path / 'out' / 'test'), pipeline=[dict(type='LoadImage')])
    assert images[0]['img'].shape == (16, 16, 3)
    assert f'{len(images)} images of' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, message', [
    ([], 'not empty'), (['--size', '3'], 'at least 8 and at most 64')])
def test_bad_arguments_write_nothing(tmp_path, capsys, arguments, message):
    out = tmp_path / 'out'
    if not arguments:
        out.mkdir()
        (out / 'mine.txt').write_text('keep')
    with pytest.raises(SystemExit):
        export_glyphs.main([str(out), '--data-root', str(tmp_path / 'cache'), *arguments])
    assert message in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ['mine.txt'] if not arguments \
        else not out.exists()


def test_a_file_in_the_way_is_refused(tmp_path, capsys):
    (tmp_path / 'out').write_text('keep')
    with pytest.raises(SystemExit):
        export_glyphs.main([str(tmp_path / 'out')])
    assert 'is a file' in capsys.readouterr().err


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(export_glyphs, 'write_list', lambda rows, path: 1 / 0)
    monkeypatch.setattr(export_glyphs, 'write_images', lambda dataset, root: [])
    (tmp_path / 'place').mkdir()
    with pytest.raises(ZeroDivisionError):
        export_glyphs.main([str(tmp_path / 'place' / 'out'), '--data-root',
                            str(tmp_path / 'cache')])
    assert list((tmp_path / 'place').iterdir()) == []
