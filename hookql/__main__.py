"""`python -m hookql` is `hookql`."""

import sys

from hookql.cli import main

sys.exit(main())
