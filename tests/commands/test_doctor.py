import json

import pytest

from retrieval.commands.doctor import main


def test_json_is_one_document_and_errors_are_status_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / 'none.py'), '--json'])
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and found['errors'] == 1
    (error,) = [one for one in found['findings'] if one['level'] == 'error']
    assert error['name'] == 'config' and 'none.py' in error['found']


def test_a_line_for_each_finding(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ('ok', 'warning') for line in lines[:-2])
    assert lines[-1].endswith('0 errors.')
