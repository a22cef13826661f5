"""Arithmetic of evaluation only: depth order, depth metrics, alignment, protocols, boundaries, statistics."""
