"""A name that leads to the gallery in use, and is switched to another in one step."""
from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .storage import sync_folder


def switch(link: str | os.PathLike, target: str | os.PathLike) -> Path | None:
    """Let a name lead to another gallery, a file or a store.

    The name is a symbolic link, so that it can be given wherever a gallery's path can. Whoever
    opens it gets the old gallery or the new one; what is open already stays as it is.

    Args:
        link: the name; it is made where it does not exist.
        target: the gallery.

    Returns:
        Where it led before, or None.

    Raises:
        FileNotFoundError: there is nothing at ``target``.
        FileExistsError: ``link`` is a file or folder itself.
        ValueError: the target is the link.
    """
    link, target = Path(link), Path(target)
    if not target.exists():
        raise FileNotFoundError(f'There is no gallery at {str(target)!r} to switch to.')
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f'{str(link)!r} is a gallery itself, and no link to one: move it to '
                              'another name, and switch the link to that first.')
    if target.parent.resolve() / target.name == link.parent.resolve() / link.name:
        raise ValueError(f'{str(link)!r} cannot lead to itself.')
    before = Path(os.path.realpath(link)) if link.is_symlink() else None
    link.parent.mkdir(parents=True, exist_ok=True)
    # relative, so that the folder with both can be moved
    leads_to = os.path.relpath(target.parent.resolve() / target.name, link.parent.resolve())
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=f'.{link.name}.') as folder:
        temporary = os.path.join(folder, link.name)
        os.symlink(leads_to, temporary)
        os.replace(temporary, link)
    sync_folder(link.parent)
    return before
