"""What an event, a signal and an alert are: Structs, code tables, catalogue, JSON Schema.

Nothing here reads a clock, a file outside the package, or the network. Arrows point one way:
``streams -> detectors -> schemas``.
"""
