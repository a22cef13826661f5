"""Which optional part of the installation a missing package comes with."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {
    "train": "training, labelling and scoring",
    "pipeline": "make repro, dav2 up",
    "serve": "the registry and models:/ addresses",
    "scenes": "dav2 scenes",
    "export": "dav2 export --to onnx",
    "video": "dav2 predict VIDEO",
    "demo": "dav2 demo",
    "team": "the services that a team shares",
    "dev": "make test",
}
"""Extra of the package → what needs it."""
MODULES = {
    **dict.fromkeys(
        ("deepspeed", "fsspec", "h5py", "imagecodecs", "jinja2", "lmdb", "markupsafe", "networkx"), "train"
    ),
    **dict.fromkeys(("OpenEXR", "py7zr", "s3fs", "scipy", "skimage", "sklearn"), "train"),
    **dict.fromkeys(("mlflow", "requests", "sqlalchemy"), "serve"),
    **dict.fromkeys(("dvc", "great_expectations", "prefect", "ray", "starlette", "uvicorn"), "pipeline"),
    **dict.fromkeys(("boto3", "botocore", "certifi", "cryptography"), "team"),
    **dict.fromkeys(("drjit", "mitsuba"), "scenes"),
    **dict.fromkeys(("google", "onnx", "onnxruntime", "onnxscript"), "export"),
    "av": "video",
    "gradio": "demo",
    "transformers": "dev",
}
"""Top-level module that is imported only where it is needed → the smallest extra that brings it."""


class MissingExtraError(ImportError):
    """A package is not installed; the message names it and the command that installs it."""


def told(error: ImportError) -> str | None:
    """A sentence about a package that could not be imported; ``None`` if it is none of ours."""
    module = (error.name or "").partition(".")[0]
    if module not in MODULES:
        return None
    extra = MODULES[module]
    return f"this needs the package '{module}', for {EXTRAS[extra]}: pip install 'dav2[{extra}]'"


def require(*modules: str) -> None:
    """Say what is missing before work is begun.

    Raises:
        MissingExtraError: one of the modules is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(told(ModuleNotFoundError(name=module)), name=module)
