"""Opens exported .pth files as a user of the host libraries does, in a process that knows these alone.

Usage: plain_loading.py FOLDER, which holds NAME.pth, NAME.py and NAME.txt, the input's path, for each model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / 'engine'))

from plain_process import stand_in_for_drn, without_multimodal


def main(folder: Path) -> None:
    """Print each model's class and its scores of the input, as JSON."""
    stand_in_for_drn()
    without_multimodal()
    from mmaction.apis import inference_recognizer, init_recognizer
    from mmpretrain import ImageClassificationInferencer, get_model

    found = {}  # images first: mmaction2 changes the registries' scope for the whole process
    for file in sorted(folder.glob('*.pth'), reverse=True):
        config, given = str(file.with_suffix('.py')), file.with_suffix('.txt').read_text()
        if "default_scope = 'mmaction'" in Path(config).read_text():
            model = init_recognizer(config, str(file), device='cpu')
            scores = inference_recognizer(model, given).pred_score
        else:
            model = get_model(config, pretrained=str(file))
            scores = ImageClassificationInferencer(model)(given)[0]['pred_scores']
        found[file.stem] = [type(model).__name__, [float(score) for score in scores]]
    assert not any(name.startswith('vpetl_mm') for name in sys.modules)
    print(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
