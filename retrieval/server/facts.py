"""What picture files say of themselves, kept between runs."""
from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from ..picture_facts import Facts, read_facts


class PictureFacts:
    """The facts of files by the id of their row, read once and kept in a file.

    Args:
        path: where they are kept.
        path_of: from an id to its file, or None.

    Attributes:
        version: rises when there are more.
    """

    def __init__(self, path: Path, path_of: Callable[[str], str | None]) -> None:
        self.path_of, self.version = path_of, 0
        self._lock = threading.Lock()
        self._kept = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._kept.execute('pragma journal_mode=wal')
        self._kept.execute('pragma synchronous=off')  # what is lost is read again
        self._kept.execute('create table if not exists facts (id text primary key, state text, '
                           'width int, height int, bytes int, date text, camera text)')
        self._known: dict[str, tuple[str, Facts]] = {
            name: (state, Facts(*facts)) for name, state, *facts in
            self._kept.execute('select * from facts')}

    @property
    def any(self) -> bool:
        """True where a fact of any file is known."""
        return bool(self._known)

    def known(self, name: str) -> Facts | None:
        """The facts of an id, where they have been read."""
        found = self._known.get(_text(name))
        return found[1] if found else None

    def of(self, name: str) -> Facts | None:
        """The facts of an id, read now where they are missing or the file changed; None where
        there is no file or it cannot be read.
        """
        path = self.path_of(name)
        if path is None:
            return None
        try:
            status = os.stat(path)
            state = f'{status.st_size} {status.st_mtime_ns}'
            key = _text(name)
            found = self._known.get(key)
            if found is None or found[0] != state:
                found = (state, read_facts(path))
                with self._lock:
                    self._known[key] = found
                    self._kept.execute('insert or replace into facts values (?,?,?,?,?,?,?)',
                                       (key, state, *found[1]))
            return found[1]
        except (OSError, ValueError):
            return None

    def read(self, names: Iterable[str], stop: threading.Event) -> None:
        """Read the facts of many, until told to stop."""
        before = len(self._known)
        for name in names:
            if stop.is_set():
                return
            self.of(name)
        if len(self._known) != before or not self.version:
            self.version += 1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._kept.close()


def _text(name: str) -> str:
    """A name as SQLite takes it; names of files may be no UTF-8."""
    if name.isascii():
        return name
    return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')
