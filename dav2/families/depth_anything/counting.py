"""Operations and memory of a network, counted on shapes alone: nothing is computed."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.sizes import get_size


@cache
def count_gflops(size: str, height: int, width: int) -> float:
    """10⁹ operations (a multiply-add is two) of one forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        DepthAnything(ModelConfig(size, None, get_size(size).input_size)).eval()(torch.empty(1, 3, height, width))
    return float(counter.get_total_flops()) / 1e9


class Footprint(NamedTuple):
    """What training keeps on a device besides the optimiser's states.

    Attributes:
        parameters: how many.
        fixed: bytes whatever the batch: weights in the precision of the products.
        image: bytes for each image: what the forward pass keeps for the backward pass.
    """

    parameters: int
    fixed: int
    image: int


@cache
def footprint(size: str, side: int, checkpointing: bool = False) -> Footprint:
    """Memory of training at ``side`` × ``side`` in bf16, from the tensors that autograd keeps of one and of two images.

    Nothing is computed and no memory taken: tensors have shapes only. Attention is the fused kind.
    """
    with torch.device("meta"):
        model = DepthAnything(ModelConfig(size, None, get_size(size).input_size)).train()
    model.set_activation_checkpointing(checkpointing)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        one, two = (_kept(model, side, images) for images in (1, 2))
    # A block that is recomputed keeps for a while what it would have kept all along: about as much as the last maps of
    # the decoder, which are gone by then, so that it is no peak of its own.
    parameters = sum(each.numel() for each in model.parameters())
    return Footprint(parameters, max(2 * parameters, 2 * one - two), two - one)


def _kept(model: DepthAnything, side: int, images: int) -> int:
    own = {id(parameter.untyped_storage()) for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.forward_features(torch.empty(images, 3, side, side))
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own)
