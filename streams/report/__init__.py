"""The HTML report: what the record of a period says, on one page that needs nothing but itself.

:mod:`periods` says which days, :mod:`record` reads and counts them, :mod:`standing` holds the figures against targets
and against the past, :mod:`charts` recomputes what each alert's detector saw, :mod:`sources` tells how good the data
are; :mod:`words` has the texts, :mod:`svg` draws, :mod:`page` and :mod:`sections` set it all, :mod:`pdf` prints it.

Charts are inline SVG of our own, not a plotting library: a chart is a few kilobytes where a library's script is four
megabytes, it prints as it is seen, needs no script (the page's policy forbids all), and is the same bytes every time.
"""
