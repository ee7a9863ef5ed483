"""``python -m dermlab`` is the command line."""

import sys

from dermlab.cli import main

sys.exit(main())
