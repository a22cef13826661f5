"""What went wrong with one item of many, as a line for a person.

Whatever one file raises is that file's failure, and the others go on: lists of what a bad file may raise are never
complete. So boundaries catch ``Exception`` (which leaves Ctrl-C and exits alone) and this module tells what was
foreseen, and therefore explains itself, from what was not, which is named with its type.
"""

from __future__ import annotations

from dav2 import gpu_errors

FORESEEN = (OSError, ValueError)
"""Errors whose text is written for the user; every error of ours derives from one of them, or lies in SPOKEN."""
SPOKEN = ("dav2", "flows", "mlflow", "botocore", "aiohttp", "onnxruntime")
"""Packages whose own errors say what happened: ours, those that speak with servers, and what judges ONNX files."""
_WITHOUT_MEMORY = ("allocate memory", "out of memory", "Insufficient memory", "Unable to allocate")
LONGEST = 600
"""Letters of a reason; some libraries put the whole of a file into their message."""


def reason(error: BaseException) -> str:
    """An error as one line; one that nobody foresaw with its type."""
    if out_of_memory(error):
        return "not enough memory for it"
    if (gpu := gpu_errors.told(error)) is not None:
        return gpu
    if isinstance(error, FileNotFoundError) and (error.errno is not None or "://" in str(error)):
        return "no such file" if error.errno is not None else f"no such file, or nothing answers there: {error}"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # Halves of a character pair stand for bytes of names that are not UTF-8, and no file or pipe takes them.
    text = " ".join(said.encode(errors="replace").decode().split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
    name = type(error).__name__
    if foreseen(error):
        return text or name
    return f"unforeseen {name}: {text}" if text else f"unforeseen {name}"


def named(error: BaseException) -> str:
    """The error as a line that says which file it is about, where the error knows."""
    file = getattr(error, "filename", None)
    text = reason(error)
    return f"{file}: {text}" if file is not None and not text.startswith(f"{file}:") else text


def foreseen(error: BaseException) -> bool:
    """Whether the error's own text explains it to a user."""
    spoken = type(error).__module__.partition(".")[0] in SPOKEN
    # UnicodeError is a ValueError that says "codec can't decode byte" and nothing about the file.
    return spoken or (isinstance(error, FORESEEN) and not isinstance(error, UnicodeError))


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the process or of a device; libraries have a type of error each for it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (
        (isinstance(error, RuntimeError | OSError) or type(error).__module__ == "cv2")
        and any(words in str(error) for words in _WITHOUT_MEMORY)
    )
