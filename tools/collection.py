import sys
from pathlib import Path

from retrieval.commands.main import main

if __name__ == '__main__':
    sys.argv.insert(1, Path(__file__).stem)
    main()
