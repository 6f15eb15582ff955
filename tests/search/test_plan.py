"""The plan as a table, and the script, which is run."""
import csv
import io
import os
import subprocess

import pytest

from retrieval.search.plan import plan_script, plan_table
from retrieval.search.proof import Proof
from retrieval.search.proved_duplicates import Member, ProvedDuplicates, ProvedGroup

NAMES = ['keep me.png', "it's.png", '-rf.png', 'two\nlines.png', '$(touch gone).png', '`x`".png',
         'sub/keep me.png', 'cropped.png', os.fsdecode(b'\xff.png')]


@pytest.fixture
def found(tmp_path):
    folder = tmp_path / "a b'c"
    (folder / 'sub').mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name.encode('utf-8', 'replace').decode())
    ids = [str(folder / name) for name in NAMES]
    kinds = ['same bytes', 'same pixels', 're-encoded', 'resized', 'same bytes', 'same bytes',
             'cropped', 'same bytes']
    members = [Member(row, 0, Proof(kind, 0.9, 2.5, 40)) for row, kind in enumerate(kinds, 1)]
    return ProvedDuplicates(ids, [ProvedGroup(0, members)], parts=[(7, 1, Proof('part'))],
                            sizes={0: (4, 3, 99)})


def test_the_script_moves_what_loses_nothing_into_a_named_folder(found, tmp_path):
    script = tmp_path / 'tidy.sh'
    script.write_bytes(plan_script(found, 'tidy.sh'))
    folder = os.path.dirname(found.ids[0])
    before = sorted(os.listdir(folder))
    none = subprocess.run(['sh', script], capture_output=True)
    assert none.returncode == 2 and 'sh tidy.sh FOLDER' in none.stderr.decode()
    assert sorted(os.listdir(folder)) == before
    done = subprocess.run(['sh', script, '-gone'], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(folder)) == ['cropped.png', 'keep me.png', 'sub']
    moved = os.listdir(tmp_path / '-gone')
    assert sorted(name.split('-', 1)[1] for name in moved) == sorted(
        os.path.basename(name) for name in NAMES[1:7] + NAMES[8:])
    assert not os.listdir(tmp_path / "a b'c" / 'sub')
    again = subprocess.run(['sh', script, '-gone'], cwd=tmp_path, capture_output=True)
    assert again.returncode == 0 and b'not there any more' in again.stderr


def test_nothing_is_moved_whose_better_file_is_gone(found, tmp_path):
    script = tmp_path / 'tidy.sh'
    script.write_bytes(plan_script(found))
    os.remove(found.ids[0])
    done = subprocess.run(['sh', script, tmp_path / 'gone'], capture_output=True)
    assert done.returncode == 0 and b'kept since' in done.stderr
    assert not os.listdir(tmp_path / 'gone')


def test_the_table_says_what_to_do_about_each(found):
    text = plan_table(found).decode('utf-8', 'surrogateescape')
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line['id'] for line in lines[:9]] == list(found.ids)
    assert [line['action'] for line in lines] == [
        'keep', *['remove'] * 6, 'look', 'remove', 'look']
    assert lines[0]['width'] == '4' and lines[3]['kind'] == 're-encoded'
    assert lines[3]['of'] == found.ids[0] and lines[3]['inliers'] == '40'
    assert lines[-1]['kind'] == 'part' and lines[-1]['group'] == '1'
