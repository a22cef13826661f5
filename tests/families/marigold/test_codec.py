"""Codecs: what they lose, what they keep, and that diffusers takes them for its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from dav2.families.directory import WeightsError
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.targets import latent_mask, normalised


def images(count: int = 12, side: int = 32) -> Tensor:
    rng = np.random.default_rng(0)
    steps = np.linspace(0, 6, side)
    waves = [
        np.sin(rng.uniform(0.3, 2) * steps[:, None] + rng.uniform(0.3, 2) * steps + rng.uniform(0, 6))
        for _ in range(3 * count)
    ]
    noise = rng.normal(0, 0.05, (count, 3, side, side))
    return torch.from_numpy(np.stack(waves).reshape(count, 3, side, side) * 0.8 + noise).float()


def slow_components(batch: Tensor, patch: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular vectors of all patches, written out one by one."""
    rows = [
        image[:, top : top + patch, left : left + patch].double().numpy().ravel()
        for image in batch
        for top in range(0, image.shape[1], patch)
        for left in range(0, image.shape[2], patch)
    ]
    table = np.stack(rows)
    mean = table.mean(axis=0)
    _, _, vectors = np.linalg.svd(table - mean, full_matrices=False)
    return mean, vectors[:channels]


def test_a_patch_codec_is_the_best_linear_one() -> None:
    batch = images()
    codec = codecs.fit_patches([batch[:5], batch[5:]], 4, 6)
    mean, vectors = slow_components(batch, 4, 6)
    found = codec.basis.double().numpy().reshape(6, -1)
    assert np.abs(found.T @ found - vectors.T @ vectors).max() < 1e-5, "the same subspace"
    restored = codecs.decode(codec, codecs.encode(codec, batch))
    patch = batch[3, :, 8:12, 20:24].double().numpy().ravel()
    expected = mean + vectors.T @ (vectors @ (patch - mean))
    assert np.abs(restored[3, :, 8:12, 20:24].numpy().ravel() - expected).max() < 1e-5
    assert abs(float(codecs.encode(codec, batch).square().mean()) - 1) < 0.02, "unit variance"
    assert codecs.factor(codec) == 4 and codecs.width(codec) == 6


def test_all_components_lose_nothing_and_order_does_not_matter() -> None:
    batch = images(6, 16)
    codec = codecs.fit_patches([batch], 2, 12)
    assert (codecs.decode(codec, codecs.encode(codec, batch)) - batch).abs().max() < 1e-5
    again = codecs.fit_patches([batch[3:], batch[:3]], 2, 12)
    assert (codec.basis - again.basis).abs().max() < 1e-5


def small_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    ).eval()


@pytest.mark.parametrize("kind", ["patch", "pixels", "vae"])
def test_what_is_saved_is_what_is_read(kind: str, tmp_path: Path) -> None:
    made = {"patch": lambda: codecs.fit_patches([images()], 4, 6), "pixels": codecs.PixelCodec, "vae": small_vae}[
        kind
    ]()
    made.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", codecs.WEIGHTS]
    read = codecs.read_codec(tmp_path)
    batch = images(2)
    with torch.no_grad():
        assert (codecs.encode(read, batch) == codecs.encode(made, batch)).all()
        expected = made.encode(batch).latent_dist.mode() * made.config["scaling_factor"]
    assert (codecs.encode(read, batch) - expected).abs().max() < 1e-6
    again = codecs.built(codecs.described(read))
    again.load_state_dict(read.state_dict())
    assert (codecs.encode(again, batch) == codecs.encode(read, batch)).all()
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_a_folder_without_a_codec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json; expected PatchCodec"):
        codecs.read_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(WeightsError, match="it is a UNet2DConditionModel"):
        codecs.read_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "PatchCodec", "patch": 4}')
    with pytest.raises(WeightsError, match="cannot be read"):
        codecs.read_codec(tmp_path)


def test_nothing_to_fit_is_said() -> None:
    with pytest.raises(ValueError, match="there are none"):
        codecs.fit_patches([], 8, 4)
    with pytest.raises(ValueError, match="without any detail"):
        codecs.fit_patches([torch.full((2, 3, 16, 16), 0.5)], 8, 4)


def test_targets_lie_between_their_quantiles() -> None:
    depth = np.random.default_rng(0).gamma(2, 3, (40, 50)).astype(np.float32)
    mask = depth > 0.5
    target = normalised(depth, mask)
    low, high = np.quantile(depth[mask], [0.02, 0.98])
    assert np.allclose(
        target.values[20, 20], np.clip(2 * ((depth[20, 20] - low) / (high - low) - 0.5), -1, 1), atol=1e-5
    )
    assert target.values.min() == -1 and target.values.max() == 1
    shifted = normalised(3 * depth + 7, mask)
    assert np.abs(shifted.values - target.values).max() < 1e-5, "any scale and shift gives the same target"


@pytest.mark.parametrize("valid", [0, 1, "constant", "nan"])
def test_a_map_that_says_nothing_weighs_nothing(valid: int | str) -> None:
    depth = np.arange(64, dtype=np.float32).reshape(8, 8)
    mask = np.ones((8, 8), bool)
    if isinstance(valid, int):
        mask[:] = False
        mask.ravel()[:valid] = True
    else:
        depth[:] = 5.0 if valid == "constant" else np.nan
    target = normalised(depth, mask)
    assert not target.mask.any() and np.isfinite(target.values).all()


def test_a_latent_cell_counts_only_with_all_its_pixels() -> None:
    mask = torch.ones(1, 16, 24, dtype=torch.bool)
    mask[0, 7, 9] = False
    found = latent_mask(mask, 8)
    assert found.shape == (1, 2, 3) and found.tolist() == [[[True, False, True], [True, True, True]]]
