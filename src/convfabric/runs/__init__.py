"""One run: its job, its folder, its record."""
