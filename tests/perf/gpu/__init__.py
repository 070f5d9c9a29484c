"""What training and evaluation reach on a GPU, against the papers' loops in the same run."""
