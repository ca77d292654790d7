"""Several processes that train one network, as torchrun starts them: the same steps as one process would take.

Each process takes an equal share of every batch. The mean of their gradients is then the batch's gradient, whatever the
objective does with the network: solve with it, differentiate through a fixed point, call it many times. So gradients
are averaged after the backward pass, in one message, and not by a wrapper around the network's forward call.

A network that does not fit is sharded instead (FSDP): each process keeps a part of the weights, of their running mean
and of the optimiser's moments; checkpoints and weights on disk are whole and read alike by any number of processes.

References: Li et al., "PyTorch distributed: experiences on accelerating data parallel training", VLDB 2020.
Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel", VLDB 2023.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["Processes", "join", "load_whole", "local", "shard", "whole", "whole_like"]

T = TypeVar("T")

_TIMEOUT = timedelta(hours=2)  # for the others while the first one validates


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Args:
        rank: of this process, from 0.
        count: of all.
        device: that this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> tuple[int, int]:
        """Where in a batch this process's part begins, and its size.

        Raises:
            InputError: the batch cannot be shared evenly.
        """
        size, left = divmod(batch, self.count)
        if left:
            raise InputError(f"expected a batch that {self.count} processes can share evenly, got {batch}; change it")
        return self.rank * size, size

    def sum(self, *values: float) -> list[float]:
        """Each value's sum over all processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Put the mean over all processes in place of each tensor."""
        if self.count == 1:
            return
        present = [tensor for tensor in tensors if tensor is not None]
        message = torch.cat([tensor.reshape(-1) for tensor in present])
        dist.all_reduce(message)
        parts = (message / self.count).split([tensor.numel() for tensor in present])
        for tensor, part in zip(present, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, in every process; so too the error if it fails."""
        if self.count == 1:
            return make()
        message: list[Any] = [None, None]
        if self.first:
            try:
                message[0] = make()
            except Exception as error:
                message[1] = error
        dist.broadcast_object_list(message, src=0, device=self.device)
        if message[1] is not None:
            raise message[1]
        return message[0]


@contextlib.contextmanager
def join() -> Iterator[Processes]:
    """A context with the processes that torchrun started, or with this one alone.

    Raises:
        InputError: more processes on this machine than it has GPUs.
    """
    count, local_rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise InputError(f"expected a GPU for each process, got {torch.cuda.device_count()}; start fewer processes")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()  # a process that leaves while others still speak can be aborted by the backend's own threads
    finally:
        dist.destroy_process_group()


def shard(network: nn.Module, processes: Processes) -> None:
    """Spread a network's weights over the processes, in place: each `nn.Sequential` is gathered only while it runs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for module in reversed([module for module in network.modules() if isinstance(module, nn.Sequential)]):
        fully_shard(module, mesh=mesh)
    # By default the outermost weights stay gathered after a forward pass; the running mean needs the parts again.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory: all of it unless it is sharded."""
    return tensor.to_local() if _sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all processes; they must ask together."""
    return tensor.full_tensor() if _sharded(tensor) else tensor  # type: ignore[attr-defined]


def whole_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device and in the type of another, and sharded as that one is."""
    value = value.to(like.device, like.dtype)
    if not _sharded(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)  # type: ignore[attr-defined]


def load_whole(module: nn.Module, arrays: Mapping[str, Tensor]) -> None:
    """Load whole arrays into a module, sharded or not."""
    present = module.state_dict()
    module.load_state_dict({n: whole_like(v, present[n]) if n in present else v for n, v in arrays.items()})


def _sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
