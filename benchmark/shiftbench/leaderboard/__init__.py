"""The leaderboard: rows in Parquet, run folders, bundles, imports, published values, verify."""
