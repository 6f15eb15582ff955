"""A dump on any number of processes, killed or not, is the same file to the last bit."""
import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from tempfile import TemporaryDirectory

import pytest
import torch

from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import MilvusIndex
from retrieval.retrievers.encoded_parts import PartsFolder

from .conftest import draw_classes, run

BATCH = 4


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp('many')
    draw_classes(root, classes=10, each=30)
    return root


@pytest.fixture(scope='module')
def options(many):
    return ['--cfg-options', f'model.prototype.dataset.data_root={many}',
            'model.prototype.dataset.split=None']


@pytest.fixture(scope='module')
def whole(config, checkpoint, options, tmp_path_factory):
    path = tmp_path_factory.mktemp('whole') / 'g.safetensors'
    # in a process with one thread, as the others: another number adds up in another order
    process, = start(1, config, checkpoint, path, *options)
    printed, err = process.communicate(timeout=300)
    assert process.returncode == 0 and '300 x 8 embeddings' in printed, err
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def environments(count, launcher):
    """What torchrun, or srun, would tell each process."""
    common = dict(os.environ, OMP_NUM_THREADS='1', MASTER_PORT=str(free_port()))
    for number in range(count):
        if launcher == 'slurm':
            yield dict(common, SLURM_PROCID=str(number), SLURM_NTASKS=str(count),
                       SLURM_NODELIST='localhost', SLURM_NNODES='1', SLURM_LOCALID=str(number))
        else:
            yield dict(common, MASTER_ADDR='127.0.0.1', RANK=str(number), WORLD_SIZE=str(count),
                       LOCAL_RANK=str(number))


def start(count, *arguments, launcher='pytorch'):
    command = [sys.executable, '-m', 'retrieval', 'dump_prototype', *map(str, arguments)]
    if count == 1:
        chosen = [dict(os.environ, OMP_NUM_THREADS='1')]
    else:
        chosen = list(environments(count, launcher))
        command += ['--launcher', launcher]
    return [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for environment in chosen]


def ended(processes):
    """The exit status of each, and what each wrote to its error stream."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [err for _, err in outputs]


def same(path, whole):
    one, two = Gallery.load(path), Gallery.load(whole)
    one.verify()
    assert torch.equal(one.embeddings, two.embeddings), 'not equal to the last bit'
    assert list(one.ids) == list(two.ids) and torch.equal(one.labels, two.labels)
    assert one.label_names == two.label_names and one.fingerprint == two.fingerprint
    assert one.skipped == two.skipped


def encoded_ids(folder):
    return {key for part in PartsFolder(folder).parts() for key in part.keys}


@pytest.mark.slow
@pytest.mark.parametrize('count, launcher', [(2, 'slurm'), (3, 'pytorch')])
def test_any_number_of_processes_writes_the_same(config, checkpoint, options, whole, tmp_path,
                                                 count, launcher):
    out = tmp_path / 'g.safetensors'
    statuses, errors = ended(start(count, config, checkpoint, out, '--shard-rows', 30, *options,
                                   launcher=launcher))
    assert statuses == [0] * count, errors
    same(out, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['g.config.py', 'g.safetensors']


def kill_midway(config, checkpoint, out, options, count, rng):
    """Start a dump and kill all its processes at a random moment after it wrote something."""
    folder = out.with_name(f'{out.name}.parts')
    before = len(list(folder.glob('part-*')))
    processes = start(count, config, checkpoint, out, '--shard-rows', BATCH, *options)
    deadline = time.monotonic() + 300
    while not out.exists() and len(list(folder.glob('part-*'))) < before + 1:
        assert time.monotonic() < deadline
        if any(process.poll() for process in processes):
            raise AssertionError(ended(processes))
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.15))
    rng.shuffle(processes)
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize('count, kills', [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_a_killed_dump_goes_on(config, checkpoint, many, options, whole, tmp_path, count, kills):
    rng, out = random.Random(kills), tmp_path / 'g.safetensors'
    hidden = {}
    for _ in range(kills):
        kill_midway(config, checkpoint, out, options, count, rng)
        if out.exists():
            break
        for path in encoded_ids(tmp_path / 'g.safetensors.parts') - set(hidden):
            with open(path, 'rb') as image:  # what is encoded must not be read again
                hidden[path] = image.read()
            with open(path, 'wb') as image:
                image.write(b'no image any more')
    try:
        if out.exists():  # the last kill came after its end
            same(out, whole)
            return
        assert hidden
        statuses, errors = ended(start(3 - count, config, checkpoint, out, *options))
    finally:
        for path, data in hidden.items():
            with open(path, 'wb') as image:
                image.write(data)
    assert statuses == [0] * (3 - count), errors
    same(out, whole)
    assert not (tmp_path / 'g.safetensors.parts').exists()


@pytest.fixture
def milvus():
    """The address of a Milvus server."""
    if uri := os.environ.get('RETRIEVAL_TEST_MILVUS'):
        yield uri
        return
    pytest.importorskip('milvus_lite')
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    with TemporaryDirectory() as folder:
        server, database, port = start_server_in_thread(folder)
        yield f'http://127.0.0.1:{port}'
        server.stop(0).wait()
        database.close()


@pytest.mark.slow
def test_two_processes_killed_midway_fill_a_collection(config, checkpoint, options, whole,
                                                       tmp_path, milvus):
    """In the encoding and in the filling, to which each brings its share. It holds the rows that
    one process writes to a file, to the last bit.
    """
    from pymilvus import MilvusClient, MilvusException
    out, name = tmp_path / 'g.safetensors', f'dumped_{uuid.uuid4().hex[:8]}'
    options = ['--fill-index', *options, 'model.index.type=retrieval.MilvusIndex',
               f'model.index.uri={milvus}', f'model.index.collection={name}',
               'model.index.batch_size=1']
    kill_midway(config, checkpoint, out, options, 2, random.Random(0))
    processes = start(2, config, checkpoint, out, *options)
    with contextlib.closing(MilvusClient(milvus)) as client:
        begun, there = '', 0
        while not there:
            assert not any(process.poll() for process in processes), ended(processes)
            begun = begun or next((one for one in client.list_collections()
                                   if one.startswith(f'{name}_gallery_')), '')
            with contextlib.suppress(MilvusException):  # it is not loaded yet
                there = 0 if not begun else client.query(
                    begun, output_fields=['count(*)'], consistency_level='Eventually')[0][
                        'count(*)']
        for process in processes:
            process.kill()
            process.communicate()
        assert out.exists() and (tmp_path / 'g.safetensors.parts').exists()
        statuses, errors = ended(start(2, config, checkpoint, out, *options))
        assert statuses == [0, 0], errors
        assert [one for one in client.list_collections() if one.startswith(name)] == [begun]
    same(out, whole)
    assert not (tmp_path / 'g.safetensors.parts').exists()
    gallery = Gallery.load(whole)
    with contextlib.closing(MilvusIndex(milvus, name)) as index:
        assert list(index.ids) == list(gallery.ids)
        assert torch.equal(index.reconstruct(range(300)), gallery.embeddings)
        assert [row['label'] for row in index.metadata_of(index.ids)] == gallery.labels.tolist()


def test_only_a_database_is_filled(config, checkpoint, options, tmp_path):
    status, _, err = run('dump_prototype', config, checkpoint, tmp_path / 'g.safetensors',
                         '--fill-index', *options)
    assert status == 2 and 'ExactIndex, is in none' in err and 'MilvusIndex' in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_unfinished_dump_of_another_model_is_refused_by_one_error(
        config, whole, work_dir, options, tmp_path):
    out = tmp_path / 'g.safetensors'
    (tmp_path / 'g.safetensors.parts').mkdir()
    PartsFolder(tmp_path / 'g.safetensors.parts').begin(Gallery.load(whole).fingerprint, True)
    (tmp_path / 'g.safetensors.parts' / 'part-kept').write_text('')
    other = work_dir / 'epoch_1.pth'
    statuses, errors = ended(start(2, config, other, out, *options))
    assert statuses == [2, 2]
    said = ''.join(errors)
    assert said.count('begun by another model') == 1 and "encoder's weights differ" in said
    assert 'Traceback' not in said and (tmp_path / 'g.safetensors.parts' / 'part-kept').exists()
    status, _, err = run('dump_prototype', config, other, out, '--no-resume', *options)
    assert status == 0, err
    assert len(Gallery.load(out)) == 300


def test_unreadable_images_are_skipped_and_listed(config, checkpoint, options, many, whole,
                                                  tmp_path):
    paths = sorted(many.rglob('*.png'))[5::100]
    kept = {path: path.read_bytes() for path in paths}
    try:
        for path, data in kept.items():
            path.write_bytes(data[:len(data) // 2])
        out = tmp_path / 'g.gallery'
        status, _, err = run('dump_prototype', config, checkpoint, out, *options)
        assert status == 2 and str(paths[0]) in err and not out.exists()
        status, printed, err = run('dump_prototype', config, checkpoint, out, '--skip-unreadable',
                                   '--dtype', 'float16', *options)
        assert status == 0, err
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    gallery, complete = GalleryStore.open(out).load(), Gallery.load(whole)
    assert set(gallery.skipped) == {str(path) for path in paths}
    assert all(f'skipped {path}' in printed for path in paths)
    assert list(gallery.ids) == [name for name in complete.ids if name not in gallery.skipped]
    rows = [complete.rows[name] for name in gallery.ids]
    torch.testing.assert_close(gallery.embeddings, complete.embeddings[rows], atol=1e-3, rtol=0)


@pytest.mark.parametrize('arguments, words', [
    (['{out}/g.pth'], '.safetensors'), (['{out}/g.safetensors', '--dtype', 'int4'], 'int8'),
    (['{out}/g.safetensors', '--shard-rows', '0'], 'shard_rows'),
    (['{out}/g.safetensors', '--launcher', 'slurm'], 'srun')])
def test_wrong_arguments_get_one_message(config, checkpoint, tmp_path, arguments, words,
                                         monkeypatch):
    if 'slurm' in arguments and torch.cuda.is_available():
        pytest.skip('the engine answers where there is a GPU')
    for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'):
        monkeypatch.delenv(name, raising=False)
    status, _, err = run('dump_prototype', config, checkpoint,
                         *[text.format(out=tmp_path) for text in arguments])
    assert status == 2 and words in err and 'Traceback' not in err
    assert not list(tmp_path.iterdir())
