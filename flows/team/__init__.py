"""What a team shares (``infra/compose.yaml``): started, watched, backed up, restored, as containers or as processes."""
