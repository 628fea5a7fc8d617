"""Other people's readers of NIR files, each in an environment of its own: what they make of a graph.

`table` lists them, `setup` makes an environment, `runner` starts `worker` in it. A new reader is a line in
`table.READERS` and a function in `worker`.
"""
