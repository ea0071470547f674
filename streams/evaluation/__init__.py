"""How good are the detectors? ``tocsin evaluate``, in one place.

:mod:`~streams.evaluation.scenarios` draws the benchmark's series, :mod:`~streams.evaluation.series_file` reads and
writes them, :mod:`~streams.evaluation.methods` names what is measured, :mod:`~streams.evaluation.run` lets every
method judge every week, :mod:`~streams.evaluation.measures` counts, :mod:`~streams.evaluation.report` shows.
:mod:`~streams.evaluation.own_series` scores a reader's own file with one detector instead.
"""
