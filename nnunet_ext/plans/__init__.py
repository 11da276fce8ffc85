"""Settings in plans files, and the configurations this package derives."""
