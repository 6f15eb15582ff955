import numpy as np
import pytest

from retrieval.doctor import machine
from retrieval.doctor.machine import (
    disk,
    examine_machine,
    one_of,
    python,
    reach_milvus,
    thread_conflicts,
    usable_cores,
)


def test_this_machine_has_no_errors():
    found = list(examine_machine())
    assert [one for one in found if one.level == 'error'] == []
    assert {'Python', 'torch', 'processor', 'threads', 'GPU', 'mmengine', 'mmcv', 'faiss', 'disk',
            'memory', 'Milvus'} <= {one.name for one in found}
    assert all(one.advice for one in found if one.level == 'warning')


@pytest.mark.parametrize('running, level', [
    ((3, 9, 18), 'error'), ((3, 10, 0), 'ok'), ((3, 13, 2), 'ok'), ((3, 14, 0), 'error')])
def test_versions_of_python(running, level):
    assert python(running).level == level


def openmp(prefix, threads=2):
    return dict(user_api='openmp', prefix=prefix, num_threads=threads)


@pytest.mark.parametrize('pools, of_torch, environment, level, advice', [
    ([openmp('libgomp')], 2, {}, 'ok', ''),
    ([openmp('libiomp'), openmp('libomp')], 2, {}, 'error', 'all from pip'),
    ([openmp('libgomp', 16)], 2, {}, 'warning', 'OMP_NUM_THREADS=2'),
    ([openmp('libgomp')], 1, {'OMP_NUM_THREADS': '1'}, 'warning', 'unset OMP_NUM_THREADS')])
def test_threads_in_conflict(pools, of_torch, environment, level, advice):
    (found,) = thread_conflicts(pools, of_torch, 2, environment)
    assert found.level == level and advice in found.advice


def test_distributions_of_one_package():
    names = ('mmcv', 'mmcv-lite')
    assert one_of('mmcv', names, {'mmcv-lite': '2.2'}).level == 'ok'
    assert one_of('mmcv', names, {}).advice == 'pip install mmcv-lite'
    both = one_of('mmcv', names, {'mmcv': '2.1', 'mmcv-lite': '2.2'})
    assert both.level == 'error' and 'pip uninstall mmcv mmcv-lite' in both.advice


def test_a_full_disk_and_one_without_rights(tmp_path, monkeypatch):
    usage = machine.shutil.disk_usage('/')._replace(free=10 ** 8)
    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda path: usage)
    assert {one.level for one in disk(tmp_path / 'not' / 'there')} == {'warning'}

    def refused(dir):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(machine.tempfile, 'TemporaryFile', refused)
    first = next(iter(disk(tmp_path)))
    assert first.level == 'error' and 'Permission denied' in first.found


def test_a_server_that_is_not_there(tmp_path):
    (found,) = [one for one in examine_machine(milvus='http://127.0.0.1:9')
                if one.name == 'Milvus']
    assert found.level == 'error' and '127.0.0.1:9' in found.found
    (new,) = reach_milvus(str(tmp_path / 'new.db'))
    assert new.level == 'ok' and not (tmp_path / 'new.db').exists()


def test_cores_of_a_container(monkeypatch):
    monkeypatch.setattr(machine.Path, 'read_text', lambda self, **_: '100000 100000')
    monkeypatch.setattr(machine.os, 'sched_getaffinity', lambda _: set(np.arange(8)))
    assert usable_cores() == 1
