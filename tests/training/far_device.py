"""A device that is not the processor, for processes on a machine without one: its tensors are held in main memory.

Operations on it run on the processor underneath, but to torch it is an accelerator of its own: a tensor is either here
or there, and a process group made for it alone refuses tensors of the processor, as NCCL does.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.utils import backend_registration
from torch.utils._pytree import tree_map_only

DEVICE = "far"
GROUP = f"{DEVICE}:relay"
"""What ``init_process_group`` takes for a group with this device and no other."""
_KEEP: list[Any] = []


class _Far(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl
    held: torch.Tensor

    @staticmethod
    def wrap(held: torch.Tensor) -> _Far:
        made = torch._C._acc.create_empty_tensor(held.shape, held.dtype)
        made.__class__ = _Far
        made.held = held
        return made


class _Relay(dist.ProcessGroup):
    """Collectives of the far device, carried out by gloo on what its tensors hold."""

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device(DEVICE)]

    def getBackendName(self) -> str:
        return "relay"

    def allreduce(self, tensors: list[torch.Tensor], options: Any = None) -> Any:
        return self.gloo.allreduce(_held(tensors), options)

    def broadcast(self, tensors: list[torch.Tensor], options: Any = None) -> Any:
        return self.gloo.broadcast(_held(tensors), options)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], options: Any = None) -> Any:
        return self.gloo.allgather([_held(one) for one in outputs], _held(inputs), options)


def _held(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    if not all(isinstance(tensor, _Far) for tensor in tensors):
        raise RuntimeError("No backend type associated with device type cpu")
    return [tensor.held for tensor in tensors]  # type: ignore[attr-defined]


def _run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    known: dict[int, _Far] = {}

    def unwrap(tensor: _Far) -> torch.Tensor:
        known[id(tensor.held)] = tensor
        return tensor.held

    def wrap(held: torch.Tensor) -> torch.Tensor:
        return known[id(held)] if id(held) in known else _Far.wrap(held)

    args, kwargs = tree_map_only(_Far, unwrap, (args, kwargs))
    if operation is torch.ops.aten.view.default:
        # To torch the tensor is contiguous, whatever holds it.
        operation = torch.reshape
    if "device" in kwargs:
        kwargs["device"] = torch.device("cpu")
    return tree_map_only(torch.Tensor, wrap, operation(*args, **kwargs))


def _copy(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    here, there = (getattr(tensor, "held", tensor) for tensor in (target, source))
    here.copy_(there)
    return target


def set_up() -> torch.device:
    """Make the device known to this process."""
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    library = torch.library.Library("_", "IMPL")
    library.fallback(_run, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    aten.impl("_copy_from", _copy, "PrivateUse1")
    for operation in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
        # torch has kernels for these that would make a tensor that holds nothing.
        aten.impl(operation.name().removeprefix("aten::"), partial(_run, operation), "PrivateUse1")
    _KEEP.extend([library, aten])
    dist.Backend.register_backend("relay", _Relay, devices=[DEVICE])
    return torch.device(DEVICE, 0)
