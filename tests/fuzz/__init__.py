"""The campaign: files of every kind, changed at random, must be read, or refused in one line.

    make fuzz SEED=7 COUNT=10000           all kinds, COUNT inputs altogether
    python -m tests.fuzz nir,pt --seed 7 --count 5000 --keep
    python -m tests.fuzz nir --seed 7 --one 42     input 42 with its traceback
    make faults                            full disks, kills, two at once (`tests.fuzz.faults`)

An input is `(kind, seed, number)` and nothing else: the same three make the same file. What was found lies in `corpus`
and is tried in every run of the tests.
"""
