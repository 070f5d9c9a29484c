"""The report of a leaderboard: ``model`` builds it once, the printers only print."""
