"""Several processes that train one network: `torchrun --nproc-per-node N train_....py`, each on its own samples.

No DistributedDataParallel: groups of parameters step at their own pace, so a group's gradients are summed when that
group steps and not before. Every function here does nothing, or gives back what it got, where there is one process.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

import progress
from errors import UserError
from models.norms import training_batch_norms

Value = TypeVar("Value")

# Processes wait for each other while they read the training labels, each those of some tasks: about a minute for 10,000
# maps of 1024 x 1024 where the files come fast. One that dies is noticed by torchrun, not by this
TIMEOUT = timedelta(minutes=30)
BUCKET = 2**25  # bytes of gradients that are exchanged at once


def default_device() -> str:
    """What --device is where it is not given."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def start(device: str | None) -> torch.device:
    """Join the other processes of torchrun, if there are any -> this process's device.

    device: `cuda` gives each process of a node its own GPU, over NCCL; `cuda:0` makes them share that one, over gloo;
    None: the default. UserError where the device is not available.
    """
    device = device or default_device()
    several, backend = int(os.environ.get("WORLD_SIZE", "1")) > 1, "nccl" if device == "cuda" else "gloo"
    if several and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        chosen = torch.device(device)
        if chosen.type not in ("cpu", "cuda"):  # metrics and losses need numbers of 64 bits, which others lack
            raise RuntimeError("networks run on cpu and cuda")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} is not available: {str(error).splitlines()[0]}") from None
    if several and not dist.is_initialized():
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group(backend, timeout=TIMEOUT)
        if not is_main():
            _fall_silent()
    return chosen


def _fall_silent() -> None:
    """Rank 0 speaks for all, to the end of the process; warnings and errors of the others still reach stderr."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    progress.silence()


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def from_main(make: Callable[[], Value]) -> Value:
    """What rank 0 makes, in every process: for what depends on files that may be changing.

    A UserError of rank 0 ends the other processes quietly.
    """
    if processes() == 1:
        return make()
    message: list[Any] = [None, None]
    if is_main():
        message = [*_outcome(make)]
    dist.broadcast_object_list(message, src=0)
    value, failure = message
    _end_together(failure)
    return value


def shared_out(makes: Mapping[str, Callable[[], Value]]) -> dict[str, Value]:
    """What each of them makes, in every process: every process makes some of them, each is made by one.

    A UserError ends all processes; the first process tells it.
    """
    if processes() == 1:
        return {name: make() for name, make in makes.items()}
    mine = list(makes)[rank() :: processes()]
    parts: list[Any] = [None] * processes()
    dist.all_gather_object(parts, _outcome(lambda: {name: makes[name]() for name in mine}))
    for _, failure in parts:
        _end_together(failure)
    made = {name: value for part, _ in parts for name, value in part.items()}
    return {name: made[name] for name in makes}


def _outcome(make: Callable[[], Value]) -> tuple[Value | None, UserError | None]:
    try:
        return make(), None
    except UserError as error:
        return None, error


def _end_together(failure: UserError | None) -> None:
    """End this process where one has failed: the first says why."""
    if failure is not None:
        if is_main():
            raise failure
        sys.exit(2)


def union(values: Iterable[str]) -> set[str]:
    """The values of all processes."""
    parts: list[Any] = [None] * processes()
    if processes() == 1:
        return set(values)
    dist.all_gather_object(parts, set(values))
    return set().union(*parts)


def sum_tensors(*tensors: Tensor) -> None:
    """Sum over the processes, in place."""
    if processes() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def count_raised(flag: bool, device: torch.device) -> int:
    """In how many processes the flag is raised."""
    if processes() == 1:
        return int(flag)
    count = torch.tensor(int(flag), device=device)
    dist.all_reduce(count)
    return int(count)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum `.grad` over the processes; one without gradient adds zeros. Where none has any, it stays None: what a
    network does not use must not decay. Asking costs one transfer from the device."""
    parameters = list(parameters)
    if processes() == 1 or not parameters:
        return
    some = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(some)
    present = [p for p, count in zip(parameters, some.tolist(), strict=True) if count]
    for parameter in present:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    sum_in_buckets([parameter.grad for parameter in present if parameter.grad is not None])


def sum_in_buckets(tensors: list[Tensor]) -> None:
    """Sum tensors of one type over the processes, in place, in few messages, all sent before one is waited for."""
    if processes() == 1:
        return
    sent = []
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sent:
        work.wait()
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list of tensors of one type into parts of about BUCKET bytes."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(part.nbytes for part in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def average_batch_norm(model: nn.Module) -> None:
    """Average the running statistics over the processes: each has seen its own samples."""
    if processes() > 1:
        for norm in training_batch_norms(model):
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None  # batch norm that keeps none is not in our networks
                dist.all_reduce(statistic)
                statistic.div_(processes())


def sync_batch_norm(model: nn.Module) -> None:
    """Batch norm over the samples of all processes, where there are several (CUDA only)."""
    if processes() > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place, except for a model that is itself a norm
        alone, _ = dist.new_subgroups(group_size=1)
        for norm in _synced_norms(model):
            norm.alone = alone  # type: ignore[assignment]  # torch's annotations know only tensors and modules


@contextmanager
def exchanged_batch_norm(model: nn.Module, takes_part: bool) -> Iterator[None]:
    """One micro-batch: synced norms exchange statistics if every process has one, else each norms by its own.

    Every process must come here, with a micro-batch or without.
    """
    norms = _synced_norms(model) if processes() > 1 else []
    if norms:
        count = count_raised(takes_part, norms[0].weight.device)
        for norm in norms:
            norm.process_group = dist.group.WORLD if count == processes() else norm.alone
    yield


def _synced_norms(model: nn.Module) -> list[nn.SyncBatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
