"""Submission bundles: rows of some runs with their predictions, in one file that can be checked.

A zip archive without compression of its own, since Parquet is compressed:

- ``manifest.json``: sha256 and size of every other member, and a digest of all that;
- ``rows/<run id>.parquet`` and ``predictions/<run id>.parquet``;
- ``runs.json``: settings and provenance of each run as its rows have them, for people.

No weights, no absolute paths, no credentials. The same content is the same bytes. A digest proves
that nothing has changed since, not who wrote it; therefore every value is recomputed from the
predictions when a bundle is taken in, and labels are compared with those of runs that are there.
"""
