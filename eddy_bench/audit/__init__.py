"""Is a method's gain real, and does each sample keep its distribution? Measured where the score is known exactly."""
