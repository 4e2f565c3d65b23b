"""`python -m trio_sweep` is the command `trio-sweep`."""

import sys

from trio_sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
