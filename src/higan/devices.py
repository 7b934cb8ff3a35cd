"""Devices by name, checked before anything is put on one."""

from __future__ import annotations

import torch

__all__ = ["activation_dtype", "open_device"]


def open_device(name: str | torch.device) -> torch.device:
    """The device of that name, such as ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda, cuda:1 … or mps; got {str(name)!r}") from None
    if device.type == "meta":
        raise ValueError("device meta holds no numbers; take cpu, cuda, cuda:1 … or mps")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"torch finds {count} here" if count else f"torch {torch.__version__} finds none here"
            raise ValueError(f"device {device} is a GPU, and {found}; take --device cpu, or a torch built for your GPU")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps is an Apple GPU, and torch finds none here; take --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        try:
            torch.empty(1, device=device)
        except Exception as error:  # each kind of device is missing in its own way
            raise ValueError(
                f"torch {torch.__version__} knows devices of the kind {device.type}, but cannot put anything on one "
                "here; take --device cpu, or a torch built for yours"
            ) from error
    return device


def activation_dtype(device: str | torch.device) -> torch.dtype:
    """What training keeps activations in: bfloat16 where the device multiplies in it, float32 elsewhere.

    A processor without such instructions emulates them: convolutions then took seven times as long as in float32.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        # Not every torch that will do has both questions.
        questions = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        fast = any(question() for question in questions)
    else:
        fast = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32
