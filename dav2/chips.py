"""Peaks of the usual GPUs, to say what share of one a run reaches.

All from NVIDIA's data sheets: dense matrix products (no sparsity) of 16-bit numbers summed in 32 bits, at boost clock.
Data sheets of the Hopper and Ada generations print the sparse figure, twice the dense one.
"""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """A GPU as its data sheet describes it.

    Attributes:
        tflops: dense matrix peak in 10¹² operations per second in bfloat16 (V100, T4: float16), sums in float32.
        memory: GB.
        sheet: the data sheet.
    """

    tflops: float
    memory: int
    sheet: str


CHIPS = {
    "B200": Chip(2250.0, 180, "Blackwell HGX B200 data sheet, 2024"),
    "H200": Chip(989.0, 141, "H200 SXM data sheet, 2023"),
    "H100 PCIe": Chip(756.0, 80, "H100 PCIe data sheet, 2022"),
    "H100 NVL": Chip(835.0, 94, "H100 NVL data sheet, 2023"),
    "H100": Chip(989.0, 80, "H100 SXM data sheet, 2022"),
    "A100": Chip(312.0, 80, "A100 data sheet, 2020; there is one of 40 GB"),
    "V100": Chip(125.0, 16, "V100 SXM2 data sheet, 2018; there is one of 32 GB"),
    "L40S": Chip(362.0, 48, "L40S data sheet, 2023"),
    "L4": Chip(121.0, 24, "L4 data sheet, 2023"),
    "A10G": Chip(70.0, 24, "A10G data sheet, 2021"),
    "A10": Chip(125.0, 24, "A10 data sheet, 2021"),
    "T4": Chip(65.0, 16, "T4 data sheet, 2018"),
    "RTX 5090": Chip(209.5, 32, "RTX Blackwell architecture paper, 2025"),
    "RTX 4090": Chip(165.2, 24, "Ada architecture paper, 2022"),
    "RTX 3090": Chip(71.0, 24, "Ampere GA102 architecture paper, 2020"),
    "RTX 6000 Ada": Chip(364.2, 48, "RTX 6000 Ada data sheet, 2022"),
    "RTX A6000": Chip(154.8, 48, "RTX A6000 data sheet, 2020"),
}


def chip(name: str) -> Chip | None:
    """The chip that a driver's ``name`` of a device contains, the longest where several fit; ``None`` if none does."""
    words = name.split()
    found = [key for key in CHIPS if _within(key.split(), words)]
    return CHIPS[max(found, key=len)] if found else None


def _within(key: list[str], words: list[str]) -> bool:
    """Whether every word of ``key`` is one of ``words``, up to what drivers append after a hyphen (A100-SXM4-80GB)."""
    return all(any(word == each or word.startswith(f"{each}-") for word in words) for each in key)


def speed(gflops: float, rate: float, name: str) -> tuple[float, float | None]:
    """What ``rate`` pieces of work a second of ``gflops`` each are.

    Returns:
        TFLOP/s, and their share of the peak of the device called ``name``; ``None`` if that is not known.
    """
    reached = gflops * rate / 1e3
    known = chip(name)
    return reached, reached / known.tflops if known is not None else None
