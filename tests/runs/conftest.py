"""The small config of the commands, and a checkpoint of it."""
from ..commands.conftest import checkpoint, config, folder, work_dir  # noqa: F401
