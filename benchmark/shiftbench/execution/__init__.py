"""From a plan to finished runs: checks, the stages of a run, training, cost. No ray."""
