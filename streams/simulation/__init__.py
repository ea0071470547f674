"""What the simulated year is made of; :mod:`streams.simulate` puts it together."""
