"""``python -m shiftbench`` is ``shiftbench``."""

import sys

from shiftbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
