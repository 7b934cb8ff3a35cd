"""Optional dependencies: asked for when they are needed, missed with one line that names the extra."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from higan.checkpoints.read import read
from higan.errors import CorruptFileError, MissingExtraError, MissingWeightsError, UnknownFormatError

__all__ = ["open_config", "open_pretrained", "optional", "read_json", "read_steps"]


def optional(module: str, extra: str) -> Any:
    """The module, imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module.partition('.')[0]} cannot be imported ({error}); install it with `pip install 'higan[{extra}]'`"
        ) from error


def open_config(name_or_path: str | Path) -> Any:
    """The configuration of a transformers model: a local folder, or a name on the Hugging Face hub.

    Raises:
        MissingExtraError: transformers is not installed.
        MissingWeightsError: there is no such folder, and the hub does not give one.
        UnknownFormatError: the folder is of no model that transformers knows.
    """
    transformers = optional("transformers", "transformers")
    try:
        return transformers.AutoConfig.from_pretrained(str(name_or_path), trust_remote_code=False)
    except OSError as error:
        raise _unreachable(name_or_path, error) from error
    except (ValueError, KeyError) as error:
        raise UnknownFormatError(f"{name_or_path}: no model that transformers knows: {_first_line(error)}") from error


def open_pretrained(class_name: str, name_or_path: str | Path) -> Any:
    """A transformers model in evaluation mode and float32, every weight of it from the file.

    Weights are read from safetensors; a folder that has ``pytorch_model.bin`` only is read without unpickling it.

    Args:
        class_name: such as ``CLIPModel`` or ``AutoModelForSemanticSegmentation``.
        name_or_path: a local folder, or a name on the Hugging Face hub.

    Raises:
        MissingExtraError: transformers, or something it needs for this model, is not installed.
        MissingWeightsError: there is no such folder, and the hub does not give one.
        UnknownFormatError: the model is of another kind.
        CorruptFileError: weights are missing from the file or have other shapes.
    """
    transformers = optional("transformers", "transformers")
    # Without a word about it, transformers 5 computes in the precision of the file, which is half of many.
    options: dict[str, Any] = {"output_loading_info": True, "trust_remote_code": False, "dtype": torch.float32}
    where: str | None = str(name_or_path)
    pickled = Path(name_or_path) / "pytorch_model.bin"
    if pickled.is_file() and not list(Path(name_or_path).glob("*.safetensors")):
        options |= {"config": open_config(name_or_path), "state_dict": dict(read(pickled).network("model").tensors)}
        where = None
        if class_name.startswith("Auto"):
            mapping = getattr(transformers, class_name)._model_mapping
            if type(options["config"]) not in mapping:
                raise UnknownFormatError(f"{name_or_path}: {options['config'].model_type} is no {class_name}")
            class_name = mapping[type(options["config"])].__name__
        del options["trust_remote_code"]
    else:
        options["use_safetensors"] = True
    try:
        with _quiet(transformers) if Path(name_or_path).is_dir() else nullcontext():
            model, loaded = getattr(transformers, class_name).from_pretrained(where, **options)
    except OSError as error:
        raise _unreachable(name_or_path, error) from error
    except ImportError as error:
        raise MissingExtraError(f"{name_or_path}: {_first_line(error)}; `pip install 'higan[transformers]'`") from error
    except (ValueError, RuntimeError, KeyError) as error:
        raise UnknownFormatError(f"{name_or_path}: cannot be opened as {class_name}: {_first_line(error)}") from error
    wrong = sorted(map(str, loaded["missing_keys"])) + sorted(map(str, loaded["mismatched_keys"]))
    if wrong:
        raise CorruptFileError(
            f"{name_or_path}: {len(wrong)} weights are missing or of another shape, first {wrong[0]}; fetch it again"
        )
    return model.eval().requires_grad_(False)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without bars for what takes a moment; downloads keep theirs."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def read_json(folder: str | Path, name: str) -> Mapping[str, Any]:
    """A JSON file of a model: from its local folder, or from the hub.

    Raises:
        MissingWeightsError: there is no such file.
        CorruptFileError: it is not a JSON object.
    """
    path = Path(folder) / name
    if not path.is_file() and not Path(folder).is_dir():
        hub = optional("huggingface_hub", "transformers")
        try:
            path = Path(hub.hf_hub_download(str(folder), name))
        except (OSError, ValueError) as error:
            raise _unreachable(folder, error) from error
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such file; copy it from where the model was published")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptFileError(f"{path} is not a JSON object")
    return value


def read_steps(name_or_path: str | Path) -> Mapping[str, Any]:
    """What a model wants done to its images, as `Preprocessing.from_config` takes it.

    From ``preprocessor_config.json``, or from ``processor_config.json``, where transformers 5 puts it for models of
    pictures and text.

    Raises:
        MissingWeightsError: there is neither.
        CorruptFileError: it is not a JSON object.
    """
    try:
        return read_json(name_or_path, "preprocessor_config.json")
    except MissingWeightsError as error:
        try:
            both = read_json(name_or_path, "processor_config.json")
        except MissingWeightsError:
            raise error from None
    steps = both.get("image_processor")
    if not isinstance(steps, dict):
        raise CorruptFileError(f"{name_or_path}: processor_config.json does not say what is done to images")
    return steps


def _unreachable(name: str | Path, error: Exception) -> MissingWeightsError:
    if Path(name).is_dir():
        return MissingWeightsError(
            f"{name} lacks a file of the model ({_first_line(error)}); expected config.json and model.safetensors"
        )
    return MissingWeightsError(
        f"{name}: neither a local folder nor a model that the Hugging Face hub gives ({_first_line(error)}). On a "
        f"connected machine `hf download {name} --local-dir DIR`, then pass DIR; with HF_HUB_OFFLINE=1 a missing model "
        "fails at once"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
