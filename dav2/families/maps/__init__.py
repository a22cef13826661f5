"""Finished maps in a folder, as a family that can label the photographs they are named like, and nothing else."""
