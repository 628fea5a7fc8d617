"""What the four commands share: errors, atomic files, plain values, tables and the command line.

It lies below `trainer` and `targets`, which do not know each other, and imports neither. Libraries that take time are
imported where they are needed: `import hardspike` takes some hundredths of a second.
"""

from hardspike.arrays import load_npy, read_npz
from hardspike.claim import claim, claimed
from hardspike.command_line import Command, run
from hardspike.commit import commit
from hardspike.errors import HardspikeError, UsageError, about, choice, few, nearest, one_line, printable, shown, words
from hardspike.files import (
    atomic_path,
    cache_folder,
    file_size,
    read_bytes,
    require_writable,
    scratch_folder,
    write_bytes,
    write_text,
)
from hardspike.lock import run_lock
from hardspike.log import logger
from hardspike.memory import free_memory, require_memory
from hardspike.outputs import OutFile, OutFolder, OutText, check_suffix
from hardspike.plain import parse_json, parse_yaml, read_yaml
from hardspike.shipped import shipped
from hardspike.tables import csv_cell, print_table, progress, versions, write_csv
from hardspike.values import from_values, laid_upon, to_values

__version__ = "0.1.0"

__all__ = [
    "Command",
    "HardspikeError",
    "OutFile",
    "OutFolder",
    "OutText",
    "UsageError",
    "__version__",
    "about",
    "atomic_path",
    "cache_folder",
    "check_suffix",
    "choice",
    "claim",
    "claimed",
    "commit",
    "csv_cell",
    "few",
    "file_size",
    "free_memory",
    "from_values",
    "laid_upon",
    "load_npy",
    "logger",
    "nearest",
    "one_line",
    "parse_json",
    "parse_yaml",
    "print_table",
    "printable",
    "progress",
    "read_bytes",
    "read_npz",
    "read_yaml",
    "require_memory",
    "require_writable",
    "run",
    "run_lock",
    "scratch_folder",
    "shipped",
    "shown",
    "to_values",
    "versions",
    "words",
    "write_bytes",
    "write_csv",
    "write_text",
]
