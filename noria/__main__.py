"""`python -m noria`: the command line."""

import sys

from noria.cli import main

sys.exit(main())
