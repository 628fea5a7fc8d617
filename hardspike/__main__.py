"""`python -m hardspike`, the same as the program `hardspike`."""

import sys

from hardspike.console import main

if __name__ == "__main__":
    sys.exit(main())
