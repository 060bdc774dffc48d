"""Hard negatives: search, rank windows, the miner."""
