"""The same job on other engines, each in a file of its own, as its documentation advises.

Each of these programs runs by itself, in an environment of its own (:mod:`tests.benchmarks.installs`), and reads what
it is to do from the environment variable ``PEER``: JSON with ``bootstrap``, ``input``, ``output``, ``group``, ``state``
(a directory) and ``limits`` (a file). None of them imports anything of ours but :mod:`window`.
"""
