"""What can go wrong before it does: the machine, the installed packages, and a config."""
from .finding import Finding
from .machine import examine_machine
from .rehearsal import examine_config

__all__ = ['Finding', 'examine_config', 'examine_machine']
