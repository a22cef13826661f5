"""Data as dav2 keeps it: shards, manifests, codecs, and ingestion into them."""
