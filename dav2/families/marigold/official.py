"""Folders of other programs: diffusers' Marigold pipelines, and Stable Diffusion to start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from dav2.failures import reason
from dav2.families.directory import WeightsError, peek, read_json
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.config import How, MarigoldConfig
from dav2.families.marigold.modalities import Modality, modality
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.process import CLASS, FEW_STEPS, few_steps, most_steps, sampler
from dav2.families.marigold.refiner import Refiner
from dav2.families.weights import read_safetensors
from dav2.files import write_whole, written_whole
from dav2.maps import Quantity

INDEX, EMPTY_TEXT = "model_index.json", "empty_text.safetensors"
TARGET_NAMES = {"appearance": ["albedo", "material"], "lighting": ["albedo", "shading", "residual"]}
"""Names of the images that an intrinsics pipeline predicts, as its index lists them."""
CODED = "gamma_coded"
"""Key of ``target_properties``, of folders written here: layers that are x^(1/2.2) of linear values."""
_SCHEDULER = "scheduler_config.json"
_KEPT = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "clip_sample", "set_alpha_to_one"),
    *("steps_offset", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing"),
)
"""What decides a DDIM scheduler."""
_KEPT_FEW = (CLASS, "original_inference_steps", "timestep_scaling")
"""And beside it an LCM scheduler."""


def load_pipeline(folder: Path) -> Marigold:
    """A Marigold pipeline of depth, normals or intrinsics, or a Stable Diffusion that such a model can start from.

    The model is on the CPU.

    Raises:
        WeightsError: a part is missing or damaged, or the parts do not fit together.
    """
    index = _json(folder / INDEX)
    codec = codecs.read_codec(folder / "vae")
    unet = _unet(folder / "unet")
    latent, taken = codecs.width(codec), unet.config["in_channels"]
    adapted = taken != latent
    what = predicted(folder, index) if adapted else Modality((Quantity.DEPTH,))
    wanted = latent * len(what.images)
    if unet.config["out_channels"] != wanted or (adapted and taken != latent + wanted):
        raise WeightsError(
            f"{folder}: the network takes {taken} channels and gives {unet.config['out_channels']}, its autoencoder "
            f"has latents of {latent}; expected {latent} or {latent + wanted} in and {wanted} out"
        )
    scheduler = _scheduler(folder / "scheduler")
    config = MarigoldConfig(
        size="sd2" if unet.config["block_out_channels"] == (320, 640, 1280, 1280) else "own",
        quantity=what.layers[0],
        input_size=int(index.get("default_processing_resolution") or (768 if adapted else 0)),
        how=How(steps=int(index.get("default_denoising_steps") or (min(10, most_steps(scheduler)) if adapted else 1))),
        adapted=adapted,
        layers=() if what.of_depth else what.layers,
        gamma_coded=what.coded,
    )
    prompt = empty_text(folder, int(unet.config["cross_attention_dim"]))
    return Marigold(unet, codec, scheduler, prompt, config).eval()


def predicted(folder: Path, index: Mapping[str, Any]) -> Modality:
    """What a pipeline predicts, from its index.

    The published appearance model gives all of its layers gamma-coded, roughness and metallicity too, which its index
    calls linear; folders that are written here say themselves which are.

    Raises:
        WeightsError: nothing that can be used.
    """
    kind = index.get("prediction_type") or "depth"
    if kind in ("depth", "disparity"):
        return Modality((Quantity(kind),))
    if kind == "normals" and index.get("use_full_z_range", True):
        return modality("normals")
    properties = index.get("target_properties")
    properties = properties if isinstance(properties, dict) else {}
    targets = {tuple(names): target for target, names in TARGET_NAMES.items()}
    names = properties.get("target_names")
    target = targets.get(tuple(names)) if isinstance(names, list) else None
    if kind != "intrinsics" or target is None:
        raise WeightsError(
            f"{folder} predicts {kind}; depth, disparity, normals with their full range, and the intrinsics "
            f"{' or '.join('[' + ', '.join(each) + ']' for each in TARGET_NAMES.values())} can be used"
        )
    layers = modality(target).layers
    try:
        coded = [Quantity(each) for each in properties.get(CODED, layers if target == "appearance" else ())]
        return Modality(layers, tuple(coded))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{folder / INDEX}: target_properties.{CODED}: {error}") from None


def _described(model: Marigold) -> dict[str, Any]:
    """Class of the pipeline, and what its index says of what it predicts."""
    if model.modality.of_depth:
        return {
            "_class_name": "MarigoldDepthPipeline", "prediction_type": model.quantity.value,
            "scale_invariant": True, "shift_invariant": True,
        }  # fmt: skip
    if model.quantity is Quantity.NORMALS:
        return {"_class_name": "MarigoldNormalsPipeline", "prediction_type": "normals", "use_full_z_range": True}
    target = next(each for each in TARGET_NAMES if modality(each).layers == model.modality.layers)
    coded = [each.value for each in model.modality.coded]
    spaces: dict[str, Any] = {
        name: {
            "prediction_space": "stack" if name == "material" else "srgb" if name in coded else "linear",
            "up_to_scale": name in ("shading", "residual"),
        }
        for name in TARGET_NAMES[target]
    }
    if "material" in spaces:
        parts = ("roughness", "metallicity")
        spaces["material"] |= {"sub_target_names": [*parts, None]}
        spaces |= {
            each: {"prediction_space": "srgb" if each in coded else "linear", "up_to_scale": False} for each in parts
        }
    properties = {"target_names": TARGET_NAMES[target], **spaces, CODED: coded}
    return {
        "_class_name": "MarigoldIntrinsicsPipeline", "prediction_type": "intrinsics", "target_properties": properties,
    }  # fmt: skip


def save_pipeline(model: Marigold, folder: Path) -> str:
    """Write ``model`` as diffusers' Marigold pipeline of its kind reads it; returns a remark for people.

    Raises:
        ValueError: the pipeline has no such quantity, or never begins from zeros.
    """
    if isinstance(model, Refiner):
        raise ValueError("diffusers' pipeline sees a photograph alone; a refiner needs the model that it refines")
    if model.quantity is Quantity.LOG_DEPTH:
        raise ValueError(f"diffusers' pipeline knows depth and disparity, not {model.quantity.value}")
    model.unet.save_pretrained(str(folder / "unet"), safe_serialization=True)
    model.codec.save_pretrained(str(folder / "vae"), safe_serialization=True)
    scheduler = sampler(model.scheduler)
    scheduler.save_pretrained(str(folder / "scheduler"))
    index = {
        **_described(model),
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", type(model.codec).__name__],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        "default_denoising_steps": model.config.how.steps,
        "default_processing_resolution": model.config.input_size,
    }
    with written_whole(folder / EMPTY_TEXT) as temporary:
        save_file({"embedding": model.prompt.detach().float().cpu().contiguous()}, temporary)
    write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")
    zeros = ", and call it with latents of zeros" if model.config.begins == "zeros" else ""
    return (
        f"{index['_class_name']}.from_pretrained(folder, text_encoder=None, tokenizer=None) reads it; set its "
        f"empty_text_embedding to the tensor of {EMPTY_TEXT}{zeros}"
    )


def empty_text(folder: Path, width: int) -> Tensor:
    """Embedding of the empty text, float32 (1, tokens, width): kept in the folder, or by its own text encoder.

    Raises:
        WeightsError: there is neither, or it is of another width.
    """
    if (folder / EMPTY_TEXT).is_file():
        prompt = read_safetensors(folder / EMPTY_TEXT).get("embedding")
        if prompt is None or prompt.ndim != 3:
            raise WeightsError(f"{folder / EMPTY_TEXT} holds no tensor 'embedding' of three dimensions")
    elif (folder / "text_encoder").is_dir():
        prompt = _encoded(folder)
    else:
        raise WeightsError(f"{folder} has no text_encoder and no {EMPTY_TEXT}; the network needs what no text means")
    if prompt.shape[-1] != width:
        raise WeightsError(f"{folder}: the text's embedding has {prompt.shape[-1]} values, the network takes {width}")
    return prompt.float()


def _encoded(folder: Path) -> Tensor:
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise WeightsError(
            f"{folder} has a text encoder, which only the package 'transformers' reads; install it, or put the "
            f"embedding of the empty text beside it as {EMPTY_TEXT}"
        ) from None
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            str(folder / "text_encoder"), local_files_only=True, use_safetensors=True
        )
        given = tokenizer("", padding="do_not_pad", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            embedding: Tensor = encoder(given)[0]
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{folder}: the text encoder cannot be read: {reason(error)}") from None
    return embedding


def _unet(folder: Path) -> UNet2DConditionModel:
    if peek(folder).get("_class_name") != "UNet2DConditionModel":
        raise WeightsError(f"{folder} holds no UNet2DConditionModel; a base needs unet, vae and scheduler")
    try:
        return UNet2DConditionModel.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        ).eval()
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{folder}: the network cannot be read: {reason(error)}") from None


def _scheduler(folder: Path) -> dict[str, Any]:
    document = _json(folder / _SCHEDULER)
    kept = (*_KEPT, *_KEPT_FEW) if few_steps(document) else _KEPT
    try:
        known = {**sampler({name: document[name] for name in kept if name in document}).config, CLASS: FEW_STEPS}
    except (TypeError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{folder / _SCHEDULER}: {reason(error)}") from None
    return {name: known[name] for name in kept}


def _json(file: Path) -> dict[str, Any]:
    try:
        document = read_json(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing; a base needs {INDEX}, unet, vae and scheduler") from None
    if not isinstance(document, dict):
        raise WeightsError(f"{file} is no mapping")
    return document
