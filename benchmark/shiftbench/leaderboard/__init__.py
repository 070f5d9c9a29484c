"""The Parquet leaderboard: schema, store, ranking and report."""
