"""MMEngine's Runner, which says what its user can use."""
from __future__ import annotations

import logging
import warnings
from typing import Any

from mmengine.runner import Runner

# Of the engine and for the engine: lists of its hooks and weights, and what it does itself with
# parts of its own, and of torch, that are going out of use.
_NO_NEWS = ('Hooks will be executed in the following order', 'paramwise_options -- ', 'Exp name: ',
            '"FileClient" will be deprecated', '"HardDiskBackend" is the alias',
            '`save_param_scheduler` is True but')


def is_news(record: logging.LogRecord) -> bool:
    """False for a line of the log that tells a user nothing.

    Example:
        >>> line = logging.makeLogRecord(dict(msg='Exp name: arcface_20260102'))
        >>> is_news(line)
        False
    """
    return not str(record.msg).startswith(_NO_NEWS)


class QuietRunner(Runner):
    """The engine's Runner without its dumps: the config is a file in the work dir, and of the
    environment one line is logged.
    """

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """The engine's, without a warning that it leaves a thread to each process."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message=r'Setting \w+_NUM_THREADS')
            super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> Any:
        """The engine's logger, without what is no news."""
        from ..distributed import rank

        if rank() != 0:
            warnings.simplefilter('ignore')  # the first process says the same
        warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(is_news)
        return logger

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        import platform
        from pathlib import Path

        import mmengine
        import torch

        from .. import __version__

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'
        file = Path(self.cfg.filename or f'{self.timestamp}.py').name
        self.logger.info(
            f'retrieval {__version__}, torch {torch.__version__}, mmengine {mmengine.__version__}, '
            f'Python {platform.python_version()} on {device}, processes: {self._world_size}, '
            f'seed {self._seed}; config: {Path(self.work_dir) / file}')
