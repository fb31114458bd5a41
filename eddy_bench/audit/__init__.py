"""Is a gain real, and does each sample keep its distribution? Where the score is known exactly."""
