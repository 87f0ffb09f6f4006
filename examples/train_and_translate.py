"""Train a small model that translates maps to terrain, and apply it to a held-out map.

python -m data_scripts earth --out datasets/earth128 --size 128
python examples/train_and_translate.py datasets/earth128 runs/example
"""

import argparse
from pathlib import Path

from PIL import Image

import pix2pix

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="paired dataset")
    parser.add_argument("out", type=Path, help="folder to write the run to")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    arguments = parser.parse_args()

    result = pix2pix.train(arguments.data, out=arguments.out, preset="demo", steps=arguments.steps)
    print({name: round(value, 4) for name, value in result.metrics.items()})

    pair = Image.open(sorted((arguments.data / "test").iterdir())[0])
    source = pair.crop((0, 0, pair.width // 2, pair.height))
    result.model.translate(source).save(arguments.out / "translated.png")
    print(pix2pix.evaluate(result.run, data=arguments.data)["metrics"]["l1"])
