"""The text of a licence that lies beside weights, for those that may not go anywhere without it."""

from __future__ import annotations

from pathlib import Path

from dav2.families.directory import WeightsError

_SUFFIXES = ("", ".md", ".txt")


def licence_beside(place: Path) -> Path | None:
    """File called ``LICENSE`` or ``LICENCE`` (``.md``, ``.txt``) in a model's folder, or in the folder of its file."""
    folder = place if place.is_dir() else place.parent
    found = [
        each
        for each in sorted(folder.iterdir())
        if each.stem.lower() in ("license", "licence") and each.suffix.lower() in _SUFFIXES and each.is_file()
    ]
    return found[0] if found else None


def needed_licence(place: Path, given: Path | None, name: str) -> Path:
    """File with the text of the licence ``name``, under which the weights at ``place`` stand.

    Args:
        given: the file that a person named, if any.

    Raises:
        WeightsError: nobody named one and none lies beside the weights.
    """
    found = given or licence_beside(place)
    if found is None:
        raise WeightsError(
            f"{place} is under the {name}, whose text has to go with the weights and with what is made of them: put it "
            "beside them as LICENSE.md, or name the file with 'licence_file' in section 'outside'"
        )
    return found
