"""Text files that other people wrote: lists, tables, annotations."""

from __future__ import annotations

import codecs
import json
from typing import Any

from dav2.data.frame import FrameError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes, name: str) -> str:
    """Text in UTF-8, or in whatever its byte order mark says; the mark is not part of it.

    Raises:
        FrameError: it is neither; the message names the file.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise FrameError(f"{name}: not text in UTF-8{at}; save it as UTF-8") from None
    if "\0" in text:
        raise FrameError(f"{name}: not text in UTF-8 (it holds zero bytes); save it as UTF-8")
    return text


LONGEST_WHOLE = 19
"""Digits of a whole number: no 64 bits hold more, and what computes with longer ones fails wherever it first does."""


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > LONGEST_WHOLE:
        raise ValueError(f"a whole number of more than {LONGEST_WHOLE} digits: {digits[:24]}…")
    return int(digits)


def decode_json(data: bytes, name: str) -> Any:
    """A JSON document.

    Raises:
        FrameError: it is damaged, nested deeper than anything that is meant to be read, or has a number of more than 64
            bits.
    """
    try:
        return json.loads(decode_text(data, name), parse_int=_whole)
    except RecursionError:
        raise FrameError(f"{name}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(f"{name}: not valid JSON: {error}") from None
