"""``python -m retrieval COMMAND …``: the command line where no script is installed."""
from .commands.main import main

if __name__ == '__main__':
    main()
