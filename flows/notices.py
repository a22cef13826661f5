"""Who is told when a gate fails, a run stops, or one gives no sign of life any more: a webhook that the server calls.

The address of a webhook is a secret of its own (whoever knows it can write there), so that it lies in a file:
:data:`FILE` of the project, or the one that ``DAV2_NOTIFY`` names. Prefect keeps it in a block, encrypted, and calls it
by two automations: a stage that ends on the server's page as failed, crashed or cancelled, and one that was killed with
its machine and reports nothing at all. ``python -m flows.notices`` sets it up anew, on the server in use.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows import heavy
from flows.access import Access
from flows.processes import STATE, ServerError
from flows.servers import prefect_access

if TYPE_CHECKING:
    from prefect.automations import AutomationCore

FILE = STATE / "notify"
"""Holds the address, readable by its owner alone; without it nobody is told."""
BLOCK = "dav2-notify"
STOPPED, SILENT = "dav2: a gate failed or a run stopped", "dav2: a run gives no sign of life"
ENDED_BADLY = frozenset(f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut", "Cancelled"))
ENDED = ENDED_BADLY | {"prefect.flow-run.Completed"}
ALIVE = "prefect.flow-run.heartbeat"
SILENCE = timedelta(minutes=10)
"""Without one for so long, a run counts as lost; a server that was away for less lets nobody be called."""
LONG = (*heavy.STAGES, "ingest", "rebuild")
"""Flows whose silence is told; a run of less than a second may have ended before its one sign of life arrives."""
PAYLOAD = """
{% set run = flow_run if flow_run is defined else none %}
{"text": {{ ("dav2 " ~ flow.name ~ " '" ~ run.name ~ "' " ~ WHAT ~ " [" ~ run.tags | join(", ") ~ "] "
~ (run.state.message or "")) | truncate(1500) | tojson }}}
""".strip()
"""What is sent, as Slack, Mattermost and others take it: one JSON object with ``text``."""


def address() -> str | None:
    """The webhook's address; ``None`` where nobody is to be told.

    Raises:
        ServerError: the file can be read by others, or holds no address.
    """
    path = Path(os.environ.get("DAV2_NOTIFY") or FILE)
    try:
        text, mode = path.read_text(encoding="utf-8").strip(), path.stat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ServerError(f"{path}, which holds the address of a webhook, cannot be read: {error}") from None
    if not text:
        return None
    if mode & 0o077:
        raise ServerError(f"{path} holds a secret and others can read it: 'chmod 600 {path}'")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(text.split()) != 1:
        raise ServerError(f"{path} must hold one line, the address of a webhook: https://…")
    return text


def host(url: str) -> str:
    """What of an address may be shown: the rest of it is the secret."""
    return urlsplit(url).hostname or ""


def register(access: Access, url: str | None, silence: timedelta = SILENCE) -> None:
    """Let the server call ``url``, and no other that was named before; with ``None`` nobody.

    Args:
        access: of the Prefect server.
        url: address of the webhook.
        silence: how long a run may give no sign of life; 10 s at least.
    """
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client
    from prefect.utilities.asyncutils import run_coro_as_sync
    from pydantic import SecretStr

    settings = {PREFECT_API_URL: access.url, PREFECT_API_AUTH_STRING: access.auth}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        for name in (STOPPED, SILENT):
            for old in client.read_automations_by_name(name):
                client.delete_automation(old.id)
        if url is None:
            return
        block: UUID = run_coro_as_sync(Webhook(method="POST", url=SecretStr(url)).asave(BLOCK, overwrite=True))
        for automation in _automations(block, silence):
            client.create_automation(automation)


def _automations(block: UUID, silence: timedelta) -> list[AutomationCore]:
    from prefect.automations import AutomationCore, CallWebhook, EventTrigger, Posture, ResourceSpecification

    every = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
    long = ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": list(LONG)})
    stopped = EventTrigger(expect=set(ENDED_BADLY), match=every, posture=Posture.Reactive, threshold=1)
    silent = EventTrigger(
        after={ALIVE}, expect={ALIVE, *ENDED}, match=every, match_related=long, for_each={"prefect.resource.id"},
        posture=Posture.Proactive, threshold=1, within=silence,
    )  # fmt: skip
    said = {STOPPED: "run.state.name | lower", SILENT: f'"gave no sign of life for {silence}"'}
    return [
        AutomationCore(
            name=name,
            trigger=trigger,
            actions=[CallWebhook(block_document_id=block, payload=PAYLOAD.replace("WHAT", said[name]))],
        )
        for name, trigger in ((STOPPED, stopped), (SILENT, silent))
    ]


def main() -> int:
    """Command line."""
    try:
        url = address()
        register(prefect_access(), url)
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"failures are told to {host(url)}" if url else "nobody is told of failures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
