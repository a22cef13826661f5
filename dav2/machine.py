"""The machine this process runs on, looked at once: processor, cores, memory, GPU; and what follows from it.

Precision ``auto`` is resolved here and nowhere else. Matrix products in bfloat16 are several times as fast as in
float32 where the processor has units for them (AMX, AVX-512 BF16), and 6 to 100 times as slow where they are emulated,
as on most laptops and desktops. So units must be reported *and* a short product must be no slower than in float32:
what a library may use of a processor can be less than what the processor has.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dav2 import limits
from dav2.gpu_errors import lacks_kernels

if TYPE_CHECKING:
    import torch

Name = Literal["fp32", "bf16"]
NAMES: tuple[Name, ...] = get_args(Name)
Setting = Literal["auto", "fp32", "bf16"]
"""What ``precision`` may be in ``params.yaml`` and on the command line."""
FEATURES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")
"""Of what PyTorch reports about a processor, what decides how fast it is here."""
SIDE = 384
"""Of the matrices whose product is timed: a tenth of a second where it is slowest."""
SPINS = "1000"
"""Times that a thread of OpenMP looks for its next piece of work before it sleeps; libgomp's own number is 300 000."""


class MachineError(ValueError):
    """This machine lacks what was asked for; the message says what there is."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: as its driver gives it.
        memory: bytes.
        capability: compute capability, e.g. ``9.0``.
        count: GPUs that are visible.
    """

    name: str
    memory: int
    capability: str
    count: int


@dataclass(frozen=True)
class Machine:
    """What :func:`look` saw.

    Attributes:
        processor: model name.
        features: those of ``FEATURES`` that the processor has.
        kernels: instruction set of PyTorch's own kernels: ``AVX512``, ``AVX2``, ``DEFAULT`` (neither).
        cores: that this process may use; affinity and a container's limit count.
        memory: bytes that this process may use; a container's limit counts.
        gpu: the first one, or ``None``.
        no_gpu: why there is none, in a few words; empty where there is one.
    """

    processor: str
    features: tuple[str, ...]
    kernels: str
    cores: int
    memory: int
    gpu: Gpu | None
    no_gpu: str

    @property
    def bf16_units(self) -> bool:
        """Whether the processor is said to have units for products in bfloat16."""
        return "avx512_bf16" in self.features or "amx_bf16" in self.features

    def record(self) -> dict[str, object]:
        """As a run's record keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Rates:
    """GFLOP/s of a short matrix product on the processor, all its cores together."""

    fp32: float
    bf16: float

    @property
    def factor(self) -> float:
        """How many times as fast bfloat16 is as float32; below 1 where it is emulated."""
        return self.bf16 / self.fp32


@dataclass(frozen=True)
class Precision:
    """A precision and why it was taken.

    Attributes:
        name: ``fp32`` or ``bf16``.
        why: one clause for a person to read.
        warning: what is wrong with what was asked for; empty if nothing is.
    """

    name: Name
    why: str
    warning: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """The same for PyTorch."""
        import torch

        return torch.bfloat16 if self.name == "bf16" else torch.float32

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


@cache
def look() -> Machine:
    """What this process runs on. Nothing is timed; see :func:`rates`."""
    import torch

    found = torch.cpu.get_capabilities()
    gpu, no_gpu = _gpu()
    return Machine(
        processor=_processor(),
        features=tuple(name for name in FEATURES if found.get(name)),
        kernels=torch.backends.cpu.get_cpu_capability(),
        cores=limits.cores(),
        memory=limits.memory(),
        gpu=gpu,
        no_gpu=no_gpu,
    )


@cache
def rates() -> Rates:
    """Time a short product in float32 and in bfloat16; about a tenth of a second, half a second where it is slowest."""
    import torch

    return Rates(fp32=_rate(torch.float32), bf16=_rate(torch.bfloat16))


def _rate(dtype: torch.dtype) -> float:
    """GFLOP/s: the best of as many products as fit into 30 ms, after one to warm up, with at least two."""
    import torch

    one, other = (torch.full((SIDE, SIDE), 0.5, dtype=dtype) for _ in range(2))
    torch.mm(one, other)
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < 0.03:
        began = time.perf_counter()
        torch.mm(one, other)
        taken.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(taken) / 1e9


def device(asked: str | torch.device | None = None) -> torch.device:
    """Where to compute: what is asked for, or the first of CUDA, MPS and the processor that is there.

    Raises:
        MachineError: there is no such device here.
    """
    import torch

    if asked is None:
        if look().gpu is not None:
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(asked)
    except RuntimeError:
        raise MachineError(f"no device '{asked}'; there are: {', '.join(_devices())}") from None
    here = {name.partition(":")[0] for name in _devices()} | {"meta"}
    gpu = look().gpu
    if found.type not in here or (found.type == "cuda" and gpu is not None and (found.index or 0) >= gpu.count):
        reason = f" ({look().no_gpu})" if found.type == "cuda" and look().no_gpu else ""
        raise MachineError(f"no device '{asked}' on this machine{reason}; there are: {', '.join(_devices())}")
    return found


def _devices() -> list[str]:
    import torch

    gpu = look().gpu
    gpus = [f"cuda:{number}" for number in range(gpu.count)] if gpu else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def precision(setting: Setting, where: torch.device | str | None = None) -> Precision:
    """The precision that ``setting`` means on the device ``where``.

    Args:
        setting: ``auto`` takes bfloat16 where products run in it (CUDA from compute capability 8.0 on, a processor
            with units for it), else float32. A name is taken as it is, with a warning where that is a bad idea.
        where: ``None`` is the device that :func:`device` gives.
    """
    place = device(where)
    if setting == "fp32":
        return Precision("fp32", "asked for")
    fast, why = _bf16_is_fast(place)
    if setting == "auto":
        return Precision("bf16" if fast else "fp32", why)
    if fast:
        return Precision("bf16", "asked for")
    if place.type != "cpu":
        return Precision("bf16", "asked for", f"bf16 was asked for, but {why}; precision: auto takes fp32 here")
    times = 1 / max(rates().factor, 1e-9)
    return Precision(
        "bf16",
        "asked for",
        f"bf16 was asked for, but {why}: a product takes {times:.0f} times as long as in float32; "
        "precision: auto takes fp32 here",
    )


def _bf16_is_fast(place: torch.device) -> tuple[bool, str]:
    machine = look()
    if place.type == "cuda" and machine.gpu is not None:
        fast = float(machine.gpu.capability) >= 8.0
        return fast, f"{machine.gpu.name} {'multiplies' if fast else 'has no units'} in bfloat16"
    if place.type != "cpu":
        return False, f"{place.type} is used in float32"
    if not machine.bf16_units:
        return False, "this processor has no units for bfloat16"
    unit = "AMX" if "amx_bf16" in machine.features else "AVX-512 BF16"
    if rates().factor < 1.0:
        return False, f"{unit} is there but not used, bfloat16 runs at {rates().factor:.2g} of float32's rate"
    return True, f"{unit}, {rates().factor:.1f} times float32's rate"


def threads(asked: int, processes: int = 1) -> int:
    """Threads of each of ``processes`` that share this machine: ``asked``, but together no more than there are cores.

    More would wait for each other. At least 1.
    """
    return max(1, min(asked, limits.cores() // processes))


def share_cores() -> None:
    """Let the threads of this process and its children give up their core soon when they wait; call it before torch.

    OpenMP's threads spin at barriers for milliseconds, because the next parallel piece usually follows at once. With
    two programs on the same cores the spinning ones keep the one that everybody waits for from running, and both get
    many times slower. A short spin costs a single program nothing that could be measured.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _processor() -> str:
    for line in limits.read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or sys.platform


def _gpu() -> tuple[Gpu | None, str]:
    """The first GPU, or why there is none."""
    import torch

    # A driver too old for these packages is a warning of PyTorch's, and then simply no GPU.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        built = torch.cuda.get_arch_list()
        if lacks_kernels((properties.major, properties.minor), built):
            return None, f"PyTorch has no kernels for {properties.name} ({capability}); it has {', '.join(built)}"
        return Gpu(properties.name, properties.total_memory, capability, torch.cuda.device_count()), ""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return None, f"CUDA_VISIBLE_DEVICES='{hidden}' hides all GPUs"
    if torch.version.cuda is None:
        return None, "this PyTorch is built without CUDA"
    told = [str(warning.message).split(". ")[0] for warning in caught if "driver" in str(warning.message)]
    return None, told[0] if told else "no NVIDIA GPU or driver found"
