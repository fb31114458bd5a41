"""What was measured: scores with their metrics and methods, statistics, the summary, files."""
