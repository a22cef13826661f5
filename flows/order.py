"""What DVC knows of the pipeline: its stages in order, and which of them are stale for which reason."""

from __future__ import annotations

MOST = 5
"""Changes that are named of one stage."""


def stages(targets: list[str] | None = None) -> list[str]:
    """Addresses of the pipeline's stages, parents first; with ``targets``, only those and what they need."""
    import networkx as nx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph
        wanted = set(graph)
        if targets:
            chosen = {stage for name in targets for stage in repo.stage.collect(name)}
            wanted = chosen.union(*(nx.descendants(graph, stage) for stage in chosen))
        # An edge points from a stage to what it depends on; data.dvc is data, not work, and has no command.
        order = reversed(list(nx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)))
        return [stage.addressing for stage in order if stage in wanted and stage.cmd]


def why_stale() -> dict[str, str]:
    """Stage → what makes it stale now; a stage after one of those becomes stale when that one has written anew."""
    from dvc.repo import Repo

    with Repo() as repo:
        status = repo.status()
    return {stage: "; ".join(map(_reason, changes)) for stage, changes in status.items()}


def _reason(change: object) -> str:
    if not isinstance(change, dict):
        return str(change)  # "changed command", "always changed"
    parts = []
    for kind, paths in change.items():
        named = [f"{path} {_state(state)}" for path, state in paths.items()]
        more = f" and {len(named) - MOST} more" if len(named) > MOST else ""
        parts.append(f"{kind.removeprefix('changed ')}: {', '.join(named[:MOST])}{more}")
    return "; ".join(parts)


def _state(state: object) -> str:
    """Of a file a word; of params.yaml every key with its own."""
    return ", ".join(f"{key} {word}" for key, word in state.items()) if isinstance(state, dict) else str(state)
