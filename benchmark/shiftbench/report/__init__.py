"""What the leaderboard says: one model, and its printers."""
