"""Things of your own by name: ``module:name``, imported from where Python finds modules or from the working folder."""

from __future__ import annotations

import contextlib
import inspect
import sys
import traceback
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from higan.errors import BrokenModuleError, MissingWeightsError

__all__ = [
    "import_named",
    "instance_of",
    "is_reference",
    "lacks",
    "lies_in",
    "made_without_arguments",
    "missing_package",
    "source_of",
]


def is_reference(name: str) -> bool:
    """Whether a name is written like ``module:name``, either with dots in it or not."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(piece.isidentifier() for piece in [*module.split("."), *attribute.split(".")])


def source_of(reference: str) -> Path | None:
    """The file of the module that ``module:name`` names; None where it is no such name, or has no file."""
    if not is_reference(reference):
        return None
    _reach_working_folder()
    # Finding a module runs the packages around it, and whatever is wrong with them is told by who imports it.
    with contextlib.suppress(Exception):
        found = find_spec(reference.partition(":")[0])
        return Path(found.origin) if found is not None and found.origin is not None else None
    return None


def lies_in(reference: str, folder: Path) -> bool:
    """Whether ``module:name`` would be imported from within a folder. Nothing is imported to find out."""
    found = _package_of(reference)
    places = [] if found is None else [found.origin, *(found.submodule_search_locations or ())]
    return any(folder.resolve() in Path(place).resolve().parents for place in places if place is not None)


def missing_package(reference: str) -> str | None:
    """The outermost package that ``module:name`` names, where there is none to be found; nothing is imported."""
    package = reference.partition(":")[0].partition(".")[0]
    there = not is_reference(reference) or package in sys.modules or _package_of(reference) is not None
    return None if there else package


def _package_of(reference: str) -> ModuleSpec | None:
    """The outermost package: to find what is in it would run it."""
    _reach_working_folder()
    with contextlib.suppress(ImportError, ValueError):  # in sys.modules, and without a specification
        return find_spec(reference.partition(":")[0].partition(".")[0])
    return None


def import_named(reference: str) -> Any:
    """What ``module:name`` names. Importing a module runs it: name only modules that you trust.

    Raises:
        ValueError: the reference has another form.
        MissingWeightsError: there is no such module, or no such name in it.
        BrokenModuleError: the module, or one that it imports, cannot be imported.
    """
    if not is_reference(reference):
        raise ValueError(f"expected module:name, as in mypackage.models:predict; got {reference!r}")
    module_name, _, name = reference.partition(":")
    found: Any = _imported(reference, module_name)
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise MissingWeightsError(f"{reference}: {error}; name something that the module holds") from error
    return found


def instance_of(reference: str, found: Any) -> Any:
    """An instance where ``reference`` names a class, what it names otherwise.

    Raises:
        ValueError: the class cannot be made without arguments.
        BrokenModuleError: making it fails.
    """
    if not isinstance(found, type):
        return found
    if _needed(found):
        raise ValueError(
            f"{reference} is a class that takes arguments ({', '.join(_needed(found))}); name an instance of it, "
            f"such as `mine = {found.__name__}(…)` in the module"
        )
    return _called(reference, found)


def made_without_arguments(reference: str, found: Any) -> Any:
    """As `instance_of`, and what a function without arguments returns; other functions as they are.

    Raises:
        ValueError: a class cannot be made without arguments.
        BrokenModuleError: making it fails.
    """
    if inspect.isroutine(found) and not _needed(found):
        return _called(reference, found)
    return instance_of(reference, found)


def lacks(thing: object, protocol: type) -> list[str]:
    """What a protocol has and the thing has not; classes lack everything, for they are no instances.

    Unlike `isinstance`, this sees buffers of a module.
    """
    names = [name for name in vars(protocol) if not name.startswith("_")]
    return [name for name in names if isinstance(thing, type) or not hasattr(thing, name)]


def _imported(reference: str, module_name: str) -> Any:
    _reach_working_folder()
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise MissingWeightsError(
                f"{reference}: there is no module {error.name!r}; it must be importable from here (in the working "
                "folder, installed, or its folder in PYTHONPATH)"
            ) from error
        raise BrokenModuleError(
            f"{reference}: an import inside the module failed{_place(reference, error)}: {error}; install what is "
            "missing, or mend the import"
        ) from error
    except ImportError as error:
        raise BrokenModuleError(
            f"{reference}: an import inside the module failed{_place(reference, error)}: {error}; mend the import"
        ) from error
    except SyntaxError as error:
        raise BrokenModuleError(
            f"{reference}: {error.filename}, line {error.lineno}, is not Python: {error.msg}; mend that line"
        ) from error
    except Exception as error:
        raise BrokenModuleError(
            f"{reference}: running the module failed{_place(reference, error)}: {_said(error)}"
        ) from error


def _reach_working_folder() -> None:
    """As Python itself does for ``python -m``, but last: nothing here hides what is installed.

    Stays, since a module may import its neighbours later on.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def _called(reference: str, function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        raise BrokenModuleError(f"{reference}() failed{_place(reference, error)}: {_said(error)}") from error


def _needed(function: Any) -> list[str]:
    """Arguments that must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C tell nothing
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _place(reference: str, error: BaseException) -> str:
    """Where in the module it happened."""
    source = source_of(reference)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == source]
    return f" at {source}, line {lines[-1]}" if lines else ""


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
