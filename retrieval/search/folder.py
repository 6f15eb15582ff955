"""Where the encoded images of a folder are kept."""
from __future__ import annotations

import hashlib
import os
from pathlib import Path


def cache_beside(folder: str | os.PathLike[str], name: str = 'default') -> Path:
    """Where the encoded images of a folder are kept.

    In the hidden folder ``.retrieval`` in it, or, where that cannot be written to, in the user's
    cache (``$XDG_CACHE_HOME``, else ``~/.cache``) under a digest of the folder's path.

    Args:
        folder: of images.
        name: of the model; each has a file of its own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache_beside(folder, 'mine').relative_to(Path(folder).resolve()).as_posix()
        '.retrieval/mine.safetensors'
    """
    root = Path(folder).resolve()
    beside = root / '.retrieval'
    if os.access(beside if beside.is_dir() else root, os.W_OK | os.X_OK):
        return beside / f'{name}.safetensors'
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    digest = hashlib.sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    return Path(home) / 'retrieval' / f'{root.name}-{digest}-{name}.safetensors'
