"""The file formats that `python -m export` writes."""
