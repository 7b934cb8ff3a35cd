"""A device that is none, on machines without a GPU: what mixes its tensors up with others fails as it would on one.

Its tensors say that they lie elsewhere; their numbers lie on the CPU. An operation on tensors of both places is refused,
but for what GPUs allow too: copies, numbers without dimensions, indices. So are dice of the CPU, and float64, which
Apple's GPUs lack. Numbers come out as on the CPU, to the bit, so that results can be compared.
"""

import pytest
import torch
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import return_and_correct_aliasing

NAME = "elsewhere"
aten = torch.ops.aten
_INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
_MADE_OF_NUMBERS = ("tensor", "as_tensor", "asarray", "arange", "linspace", "eye", "randperm")


class Elsewhere(torch.Tensor):
    """A tensor on that device, around the one that holds its numbers."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device(NAME, 0), requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def __repr__(self, **_):
        return f"Elsewhere({self.held})"

    def tolist(self):
        return self.cpu().tolist()

    def __getitem__(self, index):
        return super().__getitem__(_indices(index))

    def __setitem__(self, index, value):
        super().__setitem__(_indices(index), value)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _indices(index):
    """Lists as tensors: torch would make these where no operation in Python is heard."""
    if isinstance(index, tuple):
        return tuple(torch.tensor(i) if isinstance(i, list | tuple) else i for i in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _run(operation, args, kwargs):
    leaves = list(_leaves((args, kwargs)))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    if operation.overloadpacket is aten.to and len(tensors) > 1:
        asked = tensors[1].device
    elif there and len(there) < len(tensors) and not _may_be_mixed(operation, args, tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {operation} got some of {NAME} and cpu")
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"Expected a {NAME!r} device type for generator but found 'cpu'")
    known = {id(tensor.held): tensor for tensor in there}
    held_args, held_kwargs = _mapped(_here, (args, kwargs))
    made = operation(*held_args, **held_kwargs)
    if operation is aten.copy_.default:
        return args[0]
    if asked is not None and asked.type == "cpu":
        return made
    moved = _mapped(lambda leaf: known[id(leaf)] if id(leaf) in known else _there(leaf), made)
    if not there or torch.is_inference_mode_enabled():
        return moved
    return return_and_correct_aliasing(operation, args, kwargs, moved)


def _leaves(tree):
    """What operations take and give: nested at most in tuples, lists and dictionaries; torch's own walk takes far longer."""
    if isinstance(tree, tuple | list):
        for part in tree:
            yield from _leaves(part)
    elif isinstance(tree, dict):
        yield from _leaves(list(tree.values()))
    else:
        yield tree


def _mapped(function, tree):
    if isinstance(tree, tuple | list):
        return type(tree)([_mapped(function, part) for part in tree])
    if isinstance(tree, dict):
        return {key: _mapped(function, part) for key, part in tree.items()}
    return function(tree)


def _may_be_mixed(operation, args, tensors):
    if operation is aten.copy_.default or all(isinstance(t, Elsewhere) or not t.ndim for t in tensors):
        return True
    return operation.overloadpacket in _INDEXING and isinstance(args[0], Elsewhere)


def _here(leaf):
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.held if isinstance(leaf, Elsewhere) else leaf


def _there(leaf):
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.dtype == torch.float64:
        raise TypeError(f"Cannot convert a {NAME} tensor to float64, which that device doesn't support")
    # Views of ordinary tensors are ordinary ones in inference mode too.
    with torch.inference_mode(leaf.is_inference()):
        return Elsewhere(leaf)


def _made_here(function):
    def made(*args, device=None, **kwargs):
        if device is None or torch.device(device).type != NAME:
            return function(*args, device=device, **kwargs)
        return function(*args, **kwargs).to(device)

    return made


_libraries = []
"""What torch is told of the device, as long as these live."""


def register():
    """Makes the device known to torch, for good; before anything is differentiated, for then torch counts devices."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:  # an older torch, which knows no devices in Python
        return
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda operation, *args, **kwargs: _run(operation, args, kwargs), "PrivateUse1")
    _libraries.append(library)


def there_is_a_device():
    """The device's name, which everything in torch knows as long as this generator lives."""
    if not _libraries:
        pytest.skip("this torch knows no devices in Python")
    _device_constructors()  # remembered as they are by what sets a default device
    with pytest.MonkeyPatch.context() as patch:
        # These are put on a device where no operation in Python is heard; parameters would keep what they held.
        for name in _MADE_OF_NUMBERS:
            patch.setattr(torch, name, _made_here(getattr(torch, name)))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        yield NAME
        torch.__future__.set_overwrite_module_params_on_conversion(False)
