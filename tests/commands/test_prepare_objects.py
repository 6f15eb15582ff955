import pytest

from retrieval.datasets import Objects

from .conftest import run


def test_objects_are_rendered_once(tmp_path):
    pytest.importorskip('pybullet')
    status, printed, err = run('prepare_objects', tmp_path, '--objects', 2)
    assert status == 0, err
    assert '2 objects in 10 views each' in printed and 'zlib' in (
        tmp_path / 'licence.txt').read_text()
    assert len(Objects(tmp_path)) == len(Objects(tmp_path, 'test')) == 10
    (tmp_path / 'images' / '001' / '0.jpg').write_bytes(b'kept')
    assert run('prepare_objects', tmp_path, '--objects', 3)[0] == 0
    assert (tmp_path / 'images' / '001' / '0.jpg').read_bytes() == b'kept'
    assert len(Objects(tmp_path, check_files=True)) == 20


def test_without_pybullet(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pybullet', None)
    status, _, err = run('prepare_objects', tmp_path / 'out')
    assert status == 2 and 'pip install pybullet' in err and not (tmp_path / 'out').exists()
