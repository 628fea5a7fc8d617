"""`from export.nir_file import write_checked`: the short way to `export.formats.nir`."""

from export.formats.nir import write_checked

__all__ = ["write_checked"]
