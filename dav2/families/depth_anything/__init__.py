"""Depth Anything V2: network, losses, weights of every origin."""
