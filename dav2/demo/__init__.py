"""The page of ``dav2 demo``: models side by side on one photograph."""
