"""Records the directions that the reference implementation of SeFa finds in weights made by rule.

    python tests/parity/make_sefa_fixture.py PATH_TO_A_CHECKOUT_OF_GENFORCE_SEFA

Its module `utils` wants OpenCV for web pages only; an empty module stands in where that is not installed.
"""

import sys
import types
from pathlib import Path

import numpy as np
import torch
from records import Fixture
from sefa import CASES, FIXTURE, NUM


def main(checkout):
    sys.path.insert(0, str(Path(checkout).resolve()))
    sys.modules.setdefault("cv2", types.ModuleType("cv2"))
    from models import build_generator
    from utils import factorize_weight

    arrays = {}
    for name, case in CASES.items():
        network = build_generator(**case.reference)
        state = network.state_dict()
        weights = Fixture(case.weights).tensors()
        read = [k for k in weights if k.endswith("style.weight") or (k == "layer0.weight" and name == "pggan")]
        state.update({k: weights[k] for k in read})
        network.load_state_dict(state)
        for layers in case.layers:
            where, vectors, values = factorize_weight(network.eval(), layers)
            order = np.argsort(-values.real)[:NUM]  # the reference does not sort
            arrays[f"{name}/{layers}/layers"] = np.array(where)
            arrays[f"{name}/{layers}/vectors"] = vectors.real[order].astype(np.float32)
            arrays[f"{name}/{layers}/values"] = values.real[order].astype(np.float32)
        print(name, read)
    FIXTURE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
