"""One page that says how good the models are, on what, and what made them."""

from dav2.report.write import write_report

__all__ = ["write_report"]
