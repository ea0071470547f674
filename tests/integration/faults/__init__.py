"""Faults on purpose: what a disturbed run leaves behind must equal what an undisturbed one leaves.

    python -m tests.integration.faults --runtime embedded|kafka --fault NAME|all --runs N --seed S

The way of a run: :mod:`record` has the events, :mod:`embedded` and :mod:`on_kafka` let a runtime work on them while the
fault is done to it, :mod:`verdict` compares what came out with an undisturbed embedded run, and :mod:`report` makes the
table. Moments, victims and counts are drawn from the seed; what they hit depends on the machine, as in life.

Not everything is a fault of every runtime; what makes no sense on one is said there (``NOT_HERE``), never faked.
"""
