"""``python -m dav2.cli`` is the ``dav2`` command."""

from dav2.cli import main

main()
