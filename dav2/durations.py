"""How long something took or will take, as people say it."""

from __future__ import annotations


def spoken(seconds: float) -> str:
    """``75`` → ``1 min 15 s``, ``7500`` → ``2 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
