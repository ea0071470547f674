"""The intake API and the upload page: events over HTTP into the raw topics.

The way of an upload, by module: :mod:`~streams.api.service` (routes; who may), :mod:`~streams.api.body` (bytes to a
file), :mod:`~streams.api.rows` (the file to rows), :mod:`~streams.api.submit` (rows to the log, a verdict for each).
"""
