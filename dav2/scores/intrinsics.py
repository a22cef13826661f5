"""Appearance and light of one image against the truth, in the order and the spaces in which Marigold publishes them.

Albedo is compared gamma-coded (x^(1/2.2) of linear values), roughness and metallicity linear, each as predicted.
Shading and residual have a free scale: one factor over all three channels by least squares, then both maps times
0.8 / q90 of the truth's luminance (0.3, 0.59, 0.11), clipped to [0, 1]. Over valid pixels,

========  =================================================================================================
psnr      10 log10(1 / mean (p − t)²), of valid pixels alone
ssim      of both maps with invalid pixels set to 0: Gaussian window of σ 1.5 (11 × 11), K 0.01 and 0.03, range 1,
          mean over channels and over pixels at least 5 from the border (Wang et al. 2004; torchmetrics, scikit-image)
========  =================================================================================================

Order: scale, tone, clip, PSNR, then masking, then SSIM. Nothing here changes its arguments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dav2.maps import Quantity

GAMMA = 2.2
LUMA = (0.3, 0.59, 0.11)
BRIGHT, QUANTILE = 0.8, 0.9
LIGHT = (Quantity.SHADING, Quantity.RESIDUAL)
BEST_PSNR = 100.0
"""Of equal maps, dB."""
_SIGMA, _RADIUS, _K = 1.5, 5, (0.01, 0.03)


def gamma_coded(linear: Tensor) -> Tensor:
    """x^(1/2.2) of values clipped to [0, 1]: what the reference calls sRGB."""
    return linear.clamp(0, 1) ** (1 / GAMMA)


def compared(quantity: Quantity, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Prediction and truth of one layer as they are compared, float64 (C, H, W) in [0, 1].

    Args:
        quantity: a layer of appearance or light.
        prediction, target: (C, H, W), linear; ``target`` may be anything outside of ``mask``.
        mask: (H, W) bool, not empty.
    """
    p, t = (torch.where(mask, each, 0).double() for each in (prediction, target))
    if quantity in LIGHT:
        p = p * _least_squares(p, t)
        tone = _tone(t, mask)
        return (p * tone).clamp(0, 1), (t * tone).clamp(0, 1)
    if quantity is Quantity.ALBEDO:
        return gamma_coded(p), gamma_coded(t)
    return p.clamp(0, 1), t.clamp(0, 1)


def layer_metrics(quantity: Quantity, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, float]:
    """``psnr`` and ``ssim`` of one layer; see :func:`compared`. Both ``nan`` where the mask is empty."""
    if not bool(mask.any()):
        return {"psnr": float("nan"), "ssim": float("nan")}
    p, t = compared(quantity, prediction, target, mask)
    return {"psnr": psnr(p, t, mask), "ssim": ssim(torch.where(mask, p, 0), torch.where(mask, t, 0))}


def psnr(prediction: Tensor, target: Tensor, mask: Tensor) -> float:
    """dB over valid pixels of (C, H, W) in [0, 1], at most :data:`BEST_PSNR`."""
    error = float((prediction - target)[..., mask].double().square().mean())
    return BEST_PSNR if error == 0 else min(BEST_PSNR, -10 * math.log10(error))


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity of (C, H, W) in [0, 1]; ``nan`` where a side is shorter than the window."""
    if min(prediction.shape[-2:]) < 2 * _RADIUS + 1:
        return float("nan")
    x, y = prediction.double(), target.double()
    stacked = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = _blurred(stacked)
    first, second = (k**2 for k in _K)
    variances = square_x - mean_x**2 + square_y - mean_y**2
    covariance = product - mean_x * mean_y
    top = (2 * mean_x * mean_y + first) * (2 * covariance + second)
    return float((top / ((mean_x**2 + mean_y**2 + first) * (variances + second))).mean())


def recomposition(albedo: Tensor, shading: Tensor, residual: Tensor, image: Tensor, mask: Tensor) -> float:
    """PSNR of albedo · shading + residual against the image, in dB.

    Args:
        albedo, shading, residual: (3, H, W), linear, the last two in one unit of their own.
        image: (3, H, W), linear radiance, in any unit.
        mask: (H, W) bool.

    Returns:
        PSNR of both, after one factor by least squares, the tone of the image and a gamma of 1/2.2; ``nan`` where the
        mask is empty.
    """
    if not bool(mask.any()):
        return float("nan")
    made, shown = (torch.where(mask, each, 0).double() for each in (albedo * shading + residual, image))
    tone = _tone(shown, mask, BRIGHT**GAMMA)
    return psnr(gamma_coded(made * _least_squares(made, shown) * tone), gamma_coded(shown * tone), mask)


def _least_squares(prediction: Tensor, target: Tensor) -> float:
    """Factor that brings a map nearest to the truth; 1 where the map is 0 everywhere. Invalid pixels are 0 in both."""
    power = float((prediction * prediction).sum())
    return float((prediction * target).sum()) / power if power > 0 else 1.0


def _tone(target: Tensor, mask: Tensor, bright: float = BRIGHT) -> float:
    luminance = torch.einsum("chw,c->hw", target, target.new_tensor(LUMA))[mask]
    place = QUANTILE * (luminance.numel() - 1)
    below = int(place)
    # By hand: torch's quantile refuses more than 16 million values.
    ordered = luminance.sort().values
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    level = low + (high - low) * (place - below)
    return bright / level if level > 0 else 1.0


def _blurred(values: Tensor) -> Tensor:
    """Gaussian means at all pixels whose window lies inside: (N, C, H, W) → (N, C, H − 10, W − 10)."""
    steps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (steps / _SIGMA) ** 2)
    weights /= weights.sum()
    flat = values.flatten(0, 1)[:, None]
    rows = F.conv2d(flat, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).view(
        *values.shape[:2], *(side - 2 * _RADIUS for side in values.shape[2:])
    )
