"""Host memory that CUDA devices copy into by themselves (page-locked), made of memory that was there before."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass

import torch

__all__ = ["Pinned"]

logger = logging.getLogger(__name__)

_PORTABLE = 1  # cudaHostRegisterPortable: for all devices


@dataclass(frozen=True, slots=True)
class Pinned:
    """A registration of memory, good or refused. `process` is the one that may undo it."""

    address: int
    is_registered: bool
    process: int

    @classmethod
    def of(cls, address: int, nbytes: int) -> Pinned:
        """Register memory. Where CUDA refuses (a limit on locked memory, say), it is used as it is, and slower."""
        code = int(torch.cuda.cudart().cudaHostRegister(address, nbytes, _PORTABLE))  # type: ignore[no-untyped-call]
        if code:
            with suppress(
                RuntimeError
            ):  # the refusal stays as CUDA's last error, and the next kernel would tell it
                torch.zeros(1, device="cuda")
            logger.warning(
                "CUDA refuses to lock %d bytes of memory for captures (error %d; see `ulimit -l`): captures block "
                "for their copy.",
                nbytes,
                code,
            )
        return cls(address, code == 0, os.getpid())

    def release(self) -> None:
        """Undo it, before the memory goes."""
        if self.is_registered and self.process == os.getpid():
            with suppress(Exception):  # the interpreter may be taking torch down: the process gives all back
                torch.cuda.cudart().cudaHostUnregister(self.address)  # type: ignore[no-untyped-call]
