"""Passes from NIR graph to NIR graph, one file each."""
