from pathlib import Path

import pytest

from retrieval.config.reading import read_config
from retrieval.config.shipped import config_names, find_config, shipped_folder, with_bases

ROOT = Path(__file__).parents[2]
NAME = 'multi_similarity/lite0-ms_15e_csv'


@pytest.mark.parametrize('given', [
    NAME, f'{NAME}.py', f'configs/{NAME}.py', 'lite0-ms_15e_csv', f'./{NAME}'])
def test_a_shipped_config_is_found_from_anywhere(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Path(find_config(given))
    assert found == shipped_folder() / f'{NAME}.py'
    assert found.read_bytes() == (ROOT / 'configs' / f'{NAME}.py').read_bytes()
    assert read_config(given).filename == find_config(given)


def test_a_package_behind_a_symbolic_link(tmp_path, monkeypatch):
    """As in an environment in a linked folder."""
    (tmp_path / 'linked').symlink_to(shipped_folder())
    monkeypatch.setattr('retrieval.config.shipped.shipped_folder', lambda: tmp_path / 'linked')
    assert find_config(NAME) == str(tmp_path / 'linked' / f'{NAME}.py')
    with pytest.raises(FileNotFoundError):
        find_config('../setup')


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f'{NAME}.py'
    own.parent.mkdir()
    own.write_text('topk = 3')
    assert read_config(f'{NAME}.py').topk == 3
    assert 'model' in read_config(NAME)


@pytest.mark.parametrize('given, near', [
    ('multi_similarity/lite0-ms_15e_cvs', NAME), ('lite0-ms_15_csv', NAME),
    ('configs/multi-similarity/lite0-ms_15e_csv.py', NAME), (f'elsewhere/{NAME}.pyy', NAME)])
def test_the_nearest_names_are_given(given, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no config '{given}'.* you mean '{near}'.*lists"):
        find_config(given)


def test_a_name_does_not_lead_out_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ('../setup', '../setup.py', 'configs/../../setup', str(ROOT / 'setup')):
        with pytest.raises(FileNotFoundError):
            find_config(given)


def test_names_are_those_of_the_files_without_bases():
    names = config_names()
    assert len(names) == len({name.rpartition('/')[2] for name in names})  # each stands alone
    assert set(names) == {str(path.relative_to(ROOT / 'configs'))[:-3] for path in
                          (ROOT / 'configs').glob('[!_]*/*.py')}


def test_an_own_config_inherits_a_shipped_one(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = 'retrieval::{NAME}'\nmodel = dict(topk=7)\n")
    config = read_config(file)
    wanted = read_config(NAME)
    assert config.model.topk == 7
    wanted.model.topk = 7
    assert config.to_dict() == wanted.to_dict()
    assert with_bases(file)[1:] == with_bases(find_config(NAME))
    assert (shipped_folder() / '_base_' / 'default_runtime.py').resolve() in with_bases(file)
    file.write_text("_base_ = ['retrieval::_base_/models/resnet50_gem.py', "
                    "'retrieval::multi_similarity/lite0-ms_15e_cvs']\n")
    with pytest.raises(FileNotFoundError, match=rf"mine.py', line 1: .*Did you mean '{NAME}'"):
        read_config(file)
