"""How fast, how soon, how much memory: ``python -m tests.benchmarks``."""
