"""Networks that nobody thought of, through everything that runs a graph: whatever has to be equal is compared.

`grow` makes graphs, `networks` snnTorch networks; `naive` runs a graph a neuron at a time and shares no code with
`targets`; `relations` says what has to be equal, on a `bench`; a find is made as small as it can be and kept as text in
`corpus/`.

    make conform SEED=1 MINUTES=10 JOBS=2         # MINUTES=0: until it is interrupted
    python -m tests.conform lava --kind lava --count 300
    python -m tests.conform --seed 1 --one 1234
"""
