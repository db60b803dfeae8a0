"""Rooms judged three ways: `matrixbox.core`, the naive reference, and Synapse's own code.

    python -m tests.oracle --graphs 300000 --seed 1 --jobs 1
    python -m tests.oracle --departures

`generate` makes random rooms of legal and nearly legal moves (`moves`, `levels`); `graphs` places
their events and has the reference judge them, which is the truth of the graph.  `core_judge` and
`synapse_pipe` (with `synapse_worker`, which runs in Synapse's environment) give the answers of the
others about every event by itself, about every merge, about late events (soft failure), and about
probes: state sets as a lying peer might send them, some events counting as rejected.

`compare` lets no difference between core and the reference pass, and of Synapse's only what a named
departure explains (`departures`, `failures`): those are the reference with one sentence changed, so
they must give Synapse's very answer.  On a sample all departures together must also predict every
answer of Synapse.  What is left fails and is made small (`minimise`).  `tally` counts what the
rooms reach, `mutants` are mistakes that must be caught.

Synapse is a program of its own under its own licence, installed by pip into its own environment
(`.peers/synapse-venv`, or the folder that MATRIXBOX_SYNAPSE_VENV names); nothing of it is copied or
imported here.
"""
