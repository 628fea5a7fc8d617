"""`write_checked` where it has always been; it lives in `export.formats.nir`."""

from export.formats.nir import write_checked, write_graph

__all__ = ["write_checked", "write_graph"]
