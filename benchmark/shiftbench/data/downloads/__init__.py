"""Downloads of the data sets that are free to download."""
