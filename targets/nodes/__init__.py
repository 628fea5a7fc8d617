"""What the nodes of a NIR graph compute."""
