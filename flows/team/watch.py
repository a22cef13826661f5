"""What the stack's Prefect does by itself: it tells of failures, and lets heavy stages run one after the other."""

from __future__ import annotations

import os
from pathlib import Path

from flows import heavy, notices
from flows.access import Access
from flows.processes import ServerError
from flows.team.secrets import NOTIFY
from flows.team.settings import TeamError


def set_up(access: Access) -> str:
    """Set both as the secret ``notify`` and ``DAV2_TEAM_HEAVY`` say, and whatever they said before.

    Returns:
        What holds now, in a line.

    Raises:
        TeamError: one of them makes no sense.
    """
    text = os.environ.get("DAV2_TEAM_HEAVY", "1")
    if not text.isdigit():
        raise TeamError(
            f"DAV2_TEAM_HEAVY is '{text}'; name how many heavy stages may run at a time, or 0 for any number"
        )
    os.environ["DAV2_NOTIFY"] = str(Path(os.environ.get("DAV2_TEAM_SECRETS", "/run/secrets")) / NOTIFY)
    try:
        url = notices.address()
    except ServerError as error:
        raise TeamError(str(error)) from None
    notices.register(access, url)
    heavy.set_limit(access, int(text))
    told = f"failures are told to {notices.host(url)}" if url else "nobody is told of failures"
    return f"{told}; heavy stages at a time: {text if int(text) else 'any number'}"
