"""`python -m framebank`."""

import sys

from framebank.cli import main

sys.exit(main())
