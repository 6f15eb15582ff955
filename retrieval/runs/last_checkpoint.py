"""The checkpoint from which a work dir is resumed, wherever the dir stands now."""
from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

NOTE = 'last_checkpoint'


def last_checkpoint(work_dir: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """The newest sound checkpoint of a work dir, and what is to be said of it.

    The engine notes the last one by its absolute path in a file. Of that the name counts, so that a
    copy of the folder goes on with its own; the path counts where checkpoints are kept outside of
    work dirs. Where the note is missing or empty, or the file is damaged, the others are looked at.

    Args:
        work_dir: the folder.

    Returns:
        The path, None where there is no checkpoint; and a sentence for each that was passed over.

    Raises:
        ValueError: there are checkpoints, and not one is sound; each is named with what it lacks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     last_checkpoint(folder)
        (None, [])
    """
    folder = Path(work_dir)
    said: list[str] = []
    noted = _noted(folder)
    if noted is not None:
        fault = _fault(noted)
        if fault is None:
            return str(noted), said
        said.append(f'The last checkpoint {str(noted)!r} is passed over: {fault}.')
    folders = {folder} | ({noted.parent} if noted is not None else set())
    others = [path for one in folders for path in one.glob('*.pth')
              if path != noted and not path.name.startswith('best_')]
    faults = {path: _fault(path) for path in others}
    sound = [path for path in others if faults[path] is None]
    if sound:
        newest = max(sound, key=_age)
        said.append(f'{str(folder / NOTE)!r} names no sound checkpoint, so the newest that is '
                    f'sound is taken: {str(newest)!r}.')
        return str(newest), said
    if not others and noted is None:
        return None, said
    listed = '; '.join([*said, *(f'{path.name}: {fault}' for path, fault in faults.items())])
    raise ValueError(f'There is no sound checkpoint in {str(folder)!r} to resume from. {listed}. '
                     'Give one with --resume CHECKPOINT, or train anew without --resume.')


def _noted(folder: Path) -> Path | None:
    """The file that the work dir's note means; None where there is no note, or no such file."""
    try:
        text = (folder / NOTE).read_text(errors='replace').strip()
    except OSError:
        return None
    if not text:
        return None
    written = Path(text)
    here = folder / written.name
    if here.is_file():
        return here
    # Kept elsewhere (out_dir of the checkpoint hook), and not those of the dir that was copied.
    return written if written.is_file() and not (written.parent / NOTE).exists() else None


def _fault(path: Path) -> str | None:
    """Why a file is no checkpoint to resume from; None for one that is."""
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                return f'its part {damaged!r} is damaged'
        held = _read(path)
    except Exception as error:  # noqa: BLE001  (torch raises whatever the bytes lead it to)
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        return f'it is cut short or damaged, {path.stat().st_size} bytes'
    if not isinstance(held, dict) or not {'state_dict', 'meta', 'optimizer'} <= set(held):
        return 'it holds no state of a training'
    return None


def _read(path: Path) -> Any:
    import torch

    # mapped: the weights are not read to look at what stands beside them
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)


def _age(path: Path) -> tuple[str, int, int]:
    """What orders the checkpoints of a run: when each was written, and how far it had come."""
    meta = _read(path)['meta']
    return str(meta.get('time', '')), int(meta.get('epoch', 0)), int(meta.get('iter', 0))
