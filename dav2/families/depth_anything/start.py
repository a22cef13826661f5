"""What a run's network begins as: nothing, an encoder, or a whole model with a head of the same or another kind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from dav2.families.depth_anything.model import DepthAnything
from dav2.families.depth_anything.weights import load_directory
from dav2.families.directory import WeightsError
from dav2.maps import Quantity

if TYPE_CHECKING:
    from dav2.training.recipes import Start


def begin(model: DepthAnything, start: Start | None, take: Literal["all", "encoder"]) -> str:
    """Give ``model`` the weights of ``start``, as far as they mean the same in it.

    The encoder is always taken. Of the decoder all is taken but, where the start predicts something else, its last
    layer: that of a relative model is turned to begin a metric one, since what grew with nearness has to grow with
    distance; that of a metric model, whose values say nothing of a relative one's, is left as it was drawn, and so is
    that between depth and normals, which have another number of channels.

    Args:
        model: as drawn from the run's seed; it is changed in place.
        start: where its weights come from; ``None`` leaves it as it is.
        take: ``encoder`` leaves the whole decoder as it was drawn.

    Returns:
        What was taken, in a sentence; empty without a start.

    Raises:
        WeightsError: the start is of another size.
    """
    if start is None:
        return ""
    given = load_directory(start.folder)
    if given.config.size != model.config.size:
        raise WeightsError(
            f"{start.folder} is of size {given.config.size}, but the run trains {model.config.size}; name the size of "
            "the start in the run's section, or another start"
        )
    model.encoder.load_state_dict(given.encoder.state_dict())
    if take == "encoder" or start.encoder_only:
        return "encoder taken, decoder at random"
    last = {name: value.clone() for name, value in model.decoder.state_dict().items() if name.startswith("head3.")}
    if (model.quantity is Quantity.NORMALS) != (given.quantity is Quantity.NORMALS):
        model.decoder.load_state_dict({**given.decoder.state_dict(), **last})
        return _anew(given)
    model.decoder.load_state_dict(given.decoder.state_dict())
    return _last_layer(model, given, last)


def _anew(given: DepthAnything) -> str:
    return f"all taken but the last layer, which predicted {given.quantity.unit} and is made anew"


def _last_layer(model: DepthAnything, given: DepthAnything, drawn: dict[str, torch.Tensor]) -> str:
    ours, theirs, layer = model.config.max_depth, given.config.max_depth, model.decoder.head3
    if ours == theirs:
        # Every relative network gives nearness, whichever function of depth it was trained on.
        same = model.quantity is given.quantity
        return "all taken" if same else f"all taken, though it predicts {given.quantity.unit}"
    with torch.no_grad():
        if ours is not None and theirs is not None:
            # sigmoid(x) · range: for what is near, so many times smaller a range is so much larger an exponent.
            assert layer.bias is not None
            layer.bias += math.log(theirs / ours)
            return f"all taken, the head moved from {theirs:g} to {ours:g} metres"
        if ours is not None:
            for parameter in layer.parameters():
                parameter.neg_()
            return f"all taken, the last layer turned from {given.quantity.unit} to metres"
        model.decoder.load_state_dict(drawn, strict=False)
    return _anew(given)
