"""Freeze a trained network and write it for other tools, checked spike for spike."""

import sys

from export.nir_file import nir
from hardspike import run

if __name__ == "__main__":
    sys.exit(run("export", {"nir": nir}))
