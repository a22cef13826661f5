"""Data as others publish it: folder trees, archives, and a reader for each set."""
