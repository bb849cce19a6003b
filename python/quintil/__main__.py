"""`python -m quintil` is the command `quintil`."""

import sys

from quintil.cli import main

if __name__ == "__main__":
    sys.exit(main())
