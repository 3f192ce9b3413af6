"""`python -m pagedup` is the command `pagedup`."""

import sys

from pagedup.cli import main

sys.exit(main())
