"""The page: well-formed, nothing from elsewhere, small, and safe from the names of files."""
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from retrieval.evaluation import EmbeddingSet, EvaluationTask, rank_queries
from retrieval.report import (
    Run,
    Training,
    compare_runs,
    page,
    summarize,
    write_comparison,
    write_report,
)

from .conftest import NAMES, scattered

EVIL = '<img src=x onerror=alert(1)>\udcff"\'.png'
VOID = {'meta', 'img', 'wbr'}


class Noise:
    """A picture for every id, as incompressible as a photograph is not."""

    def of(self, name):
        numbers = np.random.default_rng(abs(hash(name)) % 2 ** 32)
        return Image.fromarray(numbers.integers(0, 256, (128, 128, 3), dtype=np.uint8))


class Reader(HTMLParser):
    """Checks that every element is closed where it was opened, and notes what is asked for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.targets, self.sources, self.tags = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.ids += [named['id']] if 'id' in named else []
        self.targets += [named['href']] if 'href' in named else []
        self.sources += [named['src']] if 'src' in named else []
        assert not any(name.startswith('on') for name in named)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag not in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


@pytest.fixture(scope='module')
def run():
    rows, labels = scattered(80, spread=1.5)
    ids = [f'shelf/{row}/{EVIL}' for row in range(80)]
    task = EvaluationTask(EmbeddingSet(rows, labels, ids, label_names=NAMES))
    return Run(f'run {EVIL}', {'': task}, pictures=Noise(), config=f'root = {EVIL!r}',
               training=Training({'loss': [(1, 2.)]}, {'embedding/mAP': [(0, 1.), (1, 2.)]}, 5, 0),
               logged={'search/Recall@1': 50.}, facts={'checkpoint': EVIL})


@pytest.fixture(scope='module')
def found(run):
    return summarize(run)


@pytest.fixture(scope='module')
def text(run, found, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'report.html'
    write_report(run, found, path)
    return path.read_text(encoding='utf-8')


def check(text):
    read = Reader(text)
    assert len(text.encode()) < 10e6
    assert all(source.startswith('data:image/webp;base64,') for source in read.sources)
    assert all(target[0] == '#' and target[1:] in read.ids for target in read.targets)
    assert not {'script', 'link', 'iframe', 'object', 'base', 'form'} & set(read.tags)
    assert '://' not in text and 'url(' not in text and '@import' not in text
    assert len(read.ids) == len(set(read.ids))
    return read


def test_the_report_is_one_sound_file(text):
    read = check(text)
    assert read.ids == ['metrics', 'curves', 'similarities', 'classes', 'worst', 'confused', 'hubs',
                        'suspects', 'pairs', 'map', 'training', 'made']
    assert read.tags.count('svg') == 7 and read.sources


def test_names_are_text(text):
    assert NAMES[-1] not in text and '<img src=x' not in text
    assert '&lt;img src=x onerror=alert(1)&gt;' in text and '&lt;b&gt;&amp;' in text


def test_numbers_stand_on_the_page(found, text):
    low, high = found.intervals['']['mAP']
    assert f'{found.means[""]["mAP"]:.2f}</td><td class="number">{low:.2f} to {high:.2f}' in text
    worst = found.worst[0]
    assert re.search(f'First right at <b>{worst.first}</b>, of {worst.relevant} right rows: '
                     + ', '.join(map(str, worst.ranks)), text)
    assert f'{len(found.suspects)} queries whose first results hold none' in text \
        or not found.suspects
    assert 'against all others (leave-one-out)' in text and 'search/Recall@1' in text


def test_pictures_have_a_budget(run, found, tmp_path, monkeypatch):
    monkeypatch.setattr(page, '_MOST_BYTES', 20_000)
    write_report(run, found, tmp_path / 'report.html')
    text = (tmp_path / 'report.html').read_text()
    assert len(text) < 600_000 and 'class="blank"' in text and text.count('data:image') < 40


def test_a_report_of_lists_without_labels_or_pictures(listed, tmp_path):
    run = Run('lists', {'easy': listed, 'hard': listed}, ['mAP', 'FNMR@FMR=0.1'])
    write_report(run, summarize(run), tmp_path / 'report.html')
    read = check((tmp_path / 'report.html').read_text())
    assert not {'classes', 'confused', 'suspects', 'training'} & set(read.ids)
    assert not read.sources


def test_the_protocol_in_words(apart, task):
    run = Run('toy', {'': apart}, average='macro', source='Someone, 2020')
    words = ' '.join(page.protocol_in_words(run, summarize(run)))
    for said in ('40 queries ranks 70 rows', "the query's own id", "the query's camera",
                 'classes of the means', 'Someone, 2020', 'cosine similarity'):
        assert said in words
    same = EvaluationTask(task.queries, task.queries)
    run = Run('toy', {'': same})
    assert 'which are the same pictures' in page.protocol_in_words(run, summarize(run))[0]


def test_the_comparison_is_one_sound_file(run, tmp_path):
    rows = np.asarray(run.task.queries.embeddings)
    blurred = rows + np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)
    other = Run('other', {'': EvaluationTask(EmbeddingSet(
        blurred, run.task.queries.labels, run.task.queries.ids, label_names=NAMES))},
        pictures=Noise(), config='root = 1')
    results = tuple(rank_queries(one.task) for one in (run, other))
    compared = compare_runs(*results, run.task.queries.ids, other.task.queries.ids)
    write_comparison((run, other), results, compared, tmp_path / 'c.html')
    text = (tmp_path / 'c.html').read_text()
    read = check(text)
    assert read.ids == ['metrics', 'queries', 'classes', 'changed1', 'changed2', 'made']
    for one in compared.metrics:
        assert f'<b>{one.difference:+.2f}</b>' in text and f'{one.p_value:.4f}' in text
    assert '+root = 1' in text


def test_short_names_of_very_many():
    many = [f'/data/set/{row}/x.png' for row in range(6000)]
    assert page._short_names(many)['/data/set/17/x.png'] == '17/x.png'
    assert page._short_names(['a/1.png', 'b/1.png', 'b/2.png'])['b/2.png'] == '2.png'


def test_ids_do_not_lead_out_of_the_folder_of_pictures(tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('in/a.png', 'secret.png'):
        Image.new('RGB', (4, 4)).save(tmp_path / name)
    pictures = page.FolderPictures(str(tmp_path / 'in'))
    assert pictures.of('a.png') is not None
    for name in ('../secret.png', str(tmp_path / 'secret.png'), 'b.png', 'a\0.png'):
        assert pictures.of(name) is None
