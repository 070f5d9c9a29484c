"""One file per method; ``base`` is the contract."""
