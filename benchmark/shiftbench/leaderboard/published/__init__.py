"""Published results in the leaderboard's own columns, to put beside ours.

``results/published/`` holds a Parquet file for each source table. Columns that the leaderboard has
too have its names and types, so DuckDB unites both with ``UNION ALL BY NAME``; what nobody
published, such as run ids, is not there or null. ``source`` tells published rows from ours.

The files are made from CSV files, of which every value is a row; one of them is kept beside them,
``papers-since-2023.csv``::

    python -m shiftbench.leaderboard.published --from FOLDER --from results/published
"""
