from pathlib import Path

from retrieval.doctor.finding import Finding, gather, one_line


def test_a_check_that_fails_is_an_error_and_the_others_are_made():
    found = list(gather([('one', lambda: [Finding('one', 'ok', 'fine')]),
                         ('two', lambda: Path('no/such/file').read_text()),
                         ('three', lambda: [Finding('three', 'ok', 'fine')])]))
    assert [(one.name, one.level) for one in found] == [
        ('one', 'ok'), ('two', 'error'), ('three', 'ok')]
    assert 'no/such/file' in found[1].found


def test_messages_on_one_line():
    assert one_line(KeyError('a name')) == 'KeyError: a name'
    assert one_line(ValueError('two\n  lines')) == 'two lines'


def test_a_finding_as_text():
    assert str(Finding('disk', 'error', 'it is full.', 'make room.')) == \
        'error    disk         it is full: make room.'
