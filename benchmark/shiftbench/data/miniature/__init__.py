"""The miniature world: all nine shifts, drawn by the suite in the real data sets' layouts."""
