"""Records what the scene predictor of the official tool gives for weights made by rule.

    python tests/parity/make_places_fixtures.py PATH_TO_A_CHECKOUT_OF_GENFORCE_HIGAN

The tool asks for torchvision only to scale and normalise pictures; where it cannot be imported, `pillow_transforms`
does the same three steps.
"""

import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from places import FIXTURE, IMAGES, LISTS, MATRIX, TENSORS


def pillow_transforms():
    """``Resize``, ``ToTensor``, ``Normalize`` and ``Compose`` as torchvision documents them for PIL images."""

    class Compose(list):
        def __call__(self, x):
            for step in self:
                x = step(x)
            return x

    def to_tensor():
        return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)

    def normalize(mean, std):
        mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        return lambda x: x.clone().sub_(mean).div_(std)

    module = types.ModuleType("torchvision.transforms")
    module.Compose = Compose
    module.Resize = lambda size: lambda image: image.resize(size[::-1], Image.BILINEAR)
    module.ToTensor = to_tensor
    module.Normalize = normalize
    return module


def official_predictor(checkout, tensors, matrix, folder):
    """The scene predictor of a checkout, with these weights."""
    try:
        import torchvision.transforms  # noqa: F401
    except Exception:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["torchvision.transforms"] = sys.modules["torchvision"].transforms = pillow_transforms()
    sys.path.insert(0, str(checkout))
    from predictors import predictor_settings
    from predictors.scene_predictor import ScenePredictor

    folder = Path(folder)
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, folder / "weights.pth.tar")
    np.save(folder / "W.npy", matrix.numpy())
    predictor_settings.PREDICTOR_POOL["scene"].update(
        weight_path=str(folder / "weights.pth.tar"),
        category_anno_path=str(LISTS / "places365_categories.txt"),
        attribute_anno_path=str(LISTS / "sun_attributes.txt"),
        attribute_additional_weight_path=str(folder / "W.npy"),
    )
    return ScenePredictor()


def main(checkout):
    torch.set_num_threads(1)
    checkout = Path(checkout).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        predictor = official_predictor(checkout, TENSORS, MATRIX, folder)
        pictures = IMAGES.permute(0, 2, 3, 1).numpy()
        official = predictor.easy_predict(pictures)
        # What the network gives before the tool changes its last layer.
        predictor.net.fc.weight.data.copy_(TENSORS["fc.weight"])
        plain = predictor.easy_predict(pictures)
        names = [predictor.category_idx_to_name[k] for k in range(365)]
        names += [predictor.attribute_idx_to_name[k] for k in range(102)]
    np.savez_compressed(
        FIXTURE,
        category_clamped=official["category"],
        category=plain["category"],
        attribute=plain["attribute"],
        names=np.array(names),
    )


if __name__ == "__main__":
    main(sys.argv[1])
