"""The file formats that `hardspike export` writes."""
