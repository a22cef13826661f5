"""Procedural RGB-D scenes (Mitsuba) and the writers of the public layouts that the sample data comes in."""
