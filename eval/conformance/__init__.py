"""What other readers of NIR make of a graph, and the graphs that they are tried on."""
