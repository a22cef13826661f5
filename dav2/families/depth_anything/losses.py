"""The losses of the recipe. Each returns one value per image, shape (B,); the caller averages.

Per image, because the mean over a batch of per-image losses does not depend on how the batch is split among ranks,
and because an image with few valid pixels then counts as much as any other. An image that teaches nothing (empty mask,
constant target, all sky) has loss 0 and gradient 0; :func:`relative_loss` says which ones those were.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dav2.families.depth_anything.alignment import Residual, contexts, least_squares_residual, regions, robust_residual
from dav2.families.vectors import angles


class RelativeLoss(NamedTuple):
    """Terms of the relative loss, each (B,), and ``counted``, bool (B,): images that had something to teach."""

    ssi: Tensor
    gradient: Tensor
    counted: Tensor


def trimmed_mean(error: Tensor, used: Tensor, trim: float) -> Tensor:
    """Mean of ``error`` over the used pixels of each row, without the ``floor(trim * M)`` largest.

    Pixels that equal the largest one kept are all kept, so the mean does not depend on the order of pixels. The divisor
    is the number of pixels kept (the authors' "mean over loss < v", issue 108 of their repository).

    Args:
        error: (B, N), not negative.
        used: bool (B, N).
        trim: share in [0, 1).

    Returns:
        (B,); 0 for rows without used pixels.
    """
    if trim > 0.0 and error.shape[1] > 0:
        dropped = (used.sum(dim=1, keepdim=True) * trim).floor().long()
        most = int(error.shape[1] * trim) + 1
        with torch.no_grad():
            largest = error.where(used, -torch.inf).topk(min(most, error.shape[1]), dim=1).values
            used = used & (error <= largest.gather(1, dropped))
    return error.where(used, 0.0).sum(dim=1) / used.sum(dim=1).clamp_min(1)


def ssi_loss(error: Tensor, used: Tensor, members: list[Tensor], trim: float) -> Tensor:
    """Scale-and-shift-invariant loss: trimmed mean error, each region on its own, combined by area.

    ``L = Σ_r A_r / Σ A_r · mean_r ρ`` with ``A_r`` the number of used pixels of region ``r`` (arXiv 2401.10891,
    section 3.2). Trimming is per image and region, never over the batch (arXiv 2406.09414, section 5).

    Args:
        error: (B, H, W), ``ρ`` of the aligned maps, not negative.
        used: bool (B, H, W).
        members: bool (B, H, W), the regions.
        trim: share of the largest errors that is left out.
    """
    total = used.flatten(1).sum(dim=1).clamp_min(1)
    loss = torch.zeros_like(total, dtype=error.dtype)
    for member in members:
        inside = (used & member).flatten(1)
        share = inside.sum(dim=1).to(error.dtype) / total
        loss = loss + share * trimmed_mean(error.flatten(1), inside, trim)
    return loss


def gradient_loss(residual: Residual, region: Tensor | None, scales: int) -> Tensor:
    """Multi-scale gradient matching: ``Σ_k 1/M_k Σ (|∂x R_k| + |∂y R_k|)`` (arXiv 1907.01341, equation 11).

    ``R_k`` is every ``2^k``-th pixel of the residual, ``M_k`` its number of used pixels. A difference counts only where
    both neighbours are used and, with CutMix, lie in the same region: the seam is no edge of a scene.

    Returns:
        (B,).
    """
    batch = residual.value.shape[0]
    loss = residual.value.new_zeros(batch)
    for k in range(scales):
        value, used = (part[:, :: 2**k, :: 2**k] for part in residual)
        patch = None if region is None else region[:, :: 2**k, :: 2**k]
        total = value.new_zeros(batch)
        for dim in (1, 2):
            length = value.shape[dim] - 1
            if length < 1:
                continue
            both = used.narrow(dim, 1, length) & used.narrow(dim, 0, length)
            if patch is not None:
                both = both & (patch.narrow(dim, 1, length) == patch.narrow(dim, 0, length))
            step = (value.narrow(dim, 1, length) - value.narrow(dim, 0, length)).abs()
            total = total + step.where(both, 0.0).sum(dim=(1, 2))
        loss = loss + total / used.sum(dim=(1, 2)).clamp_min(1)
    return loss


def relative_loss(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    region: Tensor | None = None,
    *,
    alignment: Literal["median", "lstsq"] = "median",
    normalisation: Literal["global", "local", "hybrid"] = "global",
    trim: float = 0.0,
    scales: int = 4,
) -> RelativeLoss:
    """Affine-invariant loss and gradient matching of a batch.

    With ``median`` the error is ``|R|`` (arXiv 2401.10891, equation 2), with ``lstsq`` it is ``R² / 2`` (arXiv
    1907.01341, ``L_ssimse``). ``local`` and ``hybrid`` average ``|R|`` over several normalisations of the pieces of
    the target's range; gradient matching always uses the whole image.

    Args:
        prediction: (B, H, W), larger is nearer.
        target: (B, H, W), same sense; anything at all where ``mask`` is false.
        mask: bool (B, H, W), known pixels, sky among them.
        region: (B, H, W) integers or ``None``; regions are normalised separately.
        alignment: see above.
        normalisation: ``local`` and ``hybrid`` are defined for ``median`` only.
        trim: share of each image's pixels with the largest error that is left out of the first term.
        scales: of gradient matching.

    Raises:
        ValueError: ``lstsq`` with another normalisation than ``global``.
    """
    target = target.where(mask, 0.0)
    members = regions(mask, region)
    if alignment == "lstsq":
        if normalisation != "global":
            raise ValueError("loss.normalisation must be 'global' with loss.alignment 'lstsq'")
        whole = least_squares_residual(prediction, target, members)
        error, used = whole.value**2 / 2, whole.used
    else:
        whole = robust_residual(prediction, target, members)
        error, used = _mean_error(prediction, target, members, normalisation, whole)
    return RelativeLoss(
        ssi=ssi_loss(error, used, members, trim),
        gradient=gradient_loss(whole, region, scales),
        counted=whole.used.flatten(1).any(dim=1),
    )


def _mean_error(
    prediction: Tensor,
    target: Tensor,
    members: list[Tensor],
    normalisation: Literal["global", "local", "hybrid"],
    whole: Residual,
) -> tuple[Tensor, Tensor]:
    """``|R|`` averaged over the contexts in which a pixel is used."""
    total, times = torch.zeros_like(prediction), torch.zeros_like(prediction)
    for groups in contexts(target, members, normalisation):
        residual = whole if groups is members else robust_residual(prediction, target, groups)
        total = total + residual.value.abs()
        times = times + residual.used
    return total / times.clamp_min(1), times > 0


def silog_loss(prediction: Tensor, target: Tensor, mask: Tensor, variance_focus: float = 0.5) -> Tensor:
    """Scale-invariant logarithmic loss: ``sqrt(mean(d²) - λ mean(d)²)``, ``d = ln target - ln prediction``.

    Eigen et al. (arXiv 1406.2283) with the square root and ``λ = 0.5`` of the official metric trainer, taken per image
    where that one takes it per batch of one GPU. A prediction of exactly 0 is read as 1 µm instead of giving infinity.

    Args:
        prediction: (B, H, W), metres.
        target: (B, H, W), metres, positive where ``mask``.
        mask: bool (B, H, W).
        variance_focus: λ in [0, 1]; 1 ignores a wrong scale altogether.

    Returns:
        (B,); 0 for images with an empty mask.
    """
    count = mask.sum(dim=(1, 2)).clamp_min(1)
    difference = target.where(mask, 1.0).log() - prediction.clamp_min(1e-6).log()
    difference = difference.where(mask, 0.0)
    square, mean = (difference**2).sum(dim=(1, 2)) / count, difference.sum(dim=(1, 2)) / count
    # The square root has no slope at 0: a perfect image would give NaN gradients without the floor.
    return (square - variance_focus * mean**2).clamp_min(1e-12).sqrt() * mask.flatten(1).any(dim=1)


def angular_loss(prediction: Tensor, target: Tensor, mask: Tensor, trim: float = 0.0) -> Tensor:
    """Mean angle between predicted and true normals over the known pixels of each image, in radians.

    The angle itself and not its cosine, whose slope fades as an error becomes small (compare Bae et al., arXiv
    2109.09881). A pixel is judged by itself, so that CutMix regions need nothing of their own.

    Args:
        prediction: (B, 3, H, W), of any length > 0.
        target: (B, 3, H, W), unit vectors; anything at all where ``mask`` is false.
        mask: bool (B, H, W), known pixels.
        trim: share of each image's known pixels with the largest angles that is left out.

    Returns:
        (B,); 0 for images with an empty mask.
    """
    errors = angles(prediction, target.where(mask[:, None], 0.0))
    return trimmed_mean(errors.flatten(1), mask.flatten(1), trim)


def feature_loss(features: Tensor, reference: Tensor, margin: float = 0.85) -> Tensor:
    """Feature alignment: ``1 - mean cos(f, f')`` over the patches whose cosine is at most ``margin``.

    Keeps what the frozen encoder knows about objects while letting patches that already agree move freely (arXiv
    2401.10891, section 3.3).

    Args:
        features: (B, N, C) of the encoder in training.
        reference: (B, N, C) of the frozen encoder.
        margin: patches with a larger cosine are left out.

    Returns:
        (B,); 0 where every patch agrees better than the margin.
    """
    cosine = F.cosine_similarity(features.float(), reference.float(), dim=-1)
    apart = cosine <= margin
    return (1.0 - cosine).where(apart, 0.0).sum(dim=1) / apart.sum(dim=1).clamp_min(1)
