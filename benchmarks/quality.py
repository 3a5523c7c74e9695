"""How well the pocket model follows its prompts: attribute accuracy on held-out captions.

Plain diffusers in float32, no server: this measures the weights. A caption names, for each of
its one to three shapes, the size, colour, shape and place, and the background; the verifier
reads them back from the pixels, without being told the caption.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pocket.captions import paraphrase
from pocket.paint import MODEL, judge, load, paint
from pocket.scenes import SIDE, Scene, held_out_scenes

CAPTIONS = 200
SHEET_ROWS, SHEET_COLUMNS = 5, 8
_GAP, _TEXT = 14, 62  # pixels between pictures, and below each for its caption
_PAPER, _INK = (250, 249, 246), (60, 60, 66)


def captions_for(scenes: list[Scene], seed: int = 0) -> list[str]:
    """One paraphrase of each scene, always the same ones."""
    rng = random.Random(seed)
    return [paraphrase(scene, rng) for scene in scenes]


def contact_sheet(images: list[np.ndarray], captions: list[str]) -> Image.Image:
    """A grid of pictures, each over its caption."""
    step_x, step_y = SIDE + _GAP, SIDE + _TEXT
    size = (SHEET_COLUMNS * step_x + _GAP, SHEET_ROWS * step_y + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for n, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = _GAP + n % SHEET_COLUMNS * step_x, _GAP + n // SHEET_COLUMNS * step_y
        sheet.paste(Image.fromarray(image), (x, y))
        draw.multiline_text((x, y + SIDE + 4), _wrapped(caption, draw, font), _INK, font, spacing=1)
    return sheet


def _wrapped(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines[:5])


def main() -> None:
    """Print one JSON object, or the same as lines."""
    options = _options()
    pipeline = load(options.model, options.device)
    settings = json.loads((options.model / "darkroom.json").read_text())
    steps = options.steps or settings["steps"]
    guidance = settings["guidance"] if options.guidance is None else options.guidance
    scenes = held_out_scenes(options.captions)
    captions = captions_for(scenes)
    started = time.perf_counter()
    images = paint(pipeline, captions, steps=steps, guidance=guidance, seed=options.seed)
    seconds = time.perf_counter() - started
    right = judge(scenes, images)
    whole = [min(judge([s], [i]).values()) == 1 for s, i in zip(scenes, images, strict=True)]
    result = {
        "attribute_accuracy": round(right.pop("all"), 4),
        "captions": len(captions),
        "pictures_all_right": round(sum(whole) / len(whole), 4),
        "by_attribute": {kind: round(share, 4) for kind, share in sorted(right.items())},
        "steps": steps,
        "guidance": guidance,
        "seed": options.seed,
        "seconds": round(seconds, 1),
    }
    if options.contact_sheet:
        shown = SHEET_ROWS * SHEET_COLUMNS
        contact_sheet(images[:shown], captions[:shown]).save(options.contact_sheet, optimize=True)
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in result.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contact-sheet", type=Path, help="also write a grid of pictures here")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    parser.add_argument("--steps", type=int, help="default: the model's own")
    parser.add_argument("--guidance", type=float, help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
