"""Images and videos in, depth files out."""
