"""`python -m pocket.gallery`: what each add-on changes, in numbers and on a contact sheet.

A LoRA is judged by its style's statistic, on captions that name the whole scene. A control is
judged by the verifier, on captions that leave out the places: does the picture have shapes at
the places of the hint, and only there? All of it on held-out scenes, without and with.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pocket.addons import CONTROLS, LORAS, controlled, merge
from pocket.captions import paraphrase, vague
from pocket.hints import HINTS
from pocket.paint import judge, load, paint
from pocket.render import lay_out
from pocket.scenes import SIDE, Scene, held_out_scenes
from pocket.styles import STYLES
from pocket.verify import read
from pocket.verify_style import measure

STEPS, GUIDANCE = 25, 2.0
SCENES_SEED = 2  # scenes other than the benchmark's and the training's
COLUMNS = 6
_GAP, _TEXT = 8, 18
_PAPER, _INK = (250, 249, 246), (60, 60, 66)

Picture = NDArray[np.uint8]
Table = dict[str, dict[str, float]]
Rows = list[tuple[str, list[Picture]]]


def judge_styles(
    pipeline: StableDiffusionXLPipeline, folder: Path, scenes: list[Scene]
) -> tuple[Table, Rows]:
    """Each style's statistic without its LoRA, with it, and drawn; and the pictures."""
    rng = random.Random(0)
    captions = [paraphrase(scene, rng) for scene in scenes]
    drawn = [lay_out(scene, random.Random(n)) for n, scene in enumerate(scenes)]
    plain = paint(pipeline, captions, steps=STEPS, guidance=GUIDANCE)
    table, rows = {}, [("plain", plain)]
    for style in (style for style in STYLES if (folder / f"{style}.safetensors").exists()):
        merge(pipeline, folder / f"{style}.safetensors")
        images = paint(pipeline, captions, steps=STEPS, guidance=GUIDANCE)
        merge(pipeline, folder / f"{style}.safetensors", -1.0)
        table[style] = {
            "without": measure(style, scenes, plain),
            "with": measure(style, scenes, images),
            "drawn": measure(style, scenes, [STYLES[style](layout) for layout in drawn]),
        }
        rows.append((style, images))
    return table, rows


def judge_controls(
    pipeline: StableDiffusionXLPipeline, folder: Path, scenes: list[Scene]
) -> tuple[Table, Rows]:
    """The shares of pictures right without a control and with each; hints and pictures."""
    rng = random.Random(0)
    captions = [vague(scene, rng) for scene in scenes]
    layouts = [lay_out(scene, random.Random(n)) for n, scene in enumerate(scenes)]
    plain = paint(pipeline, captions, steps=STEPS, guidance=GUIDANCE)
    table: Table = {"none": follows(scenes, plain)}
    rows: Rows = [("no places named", plain)]
    for name in (name for name in HINTS if (folder / name).exists()):
        hints = [HINTS[name](layout) for layout in layouts]
        follower = controlled(pipeline, folder / name)
        images = paint(follower, captions, steps=STEPS, guidance=GUIDANCE, hints=hints)
        table[name] = follows(scenes, images)
        shown = [(hint * 255).round().astype(np.uint8) for hint in hints[:COLUMNS]]
        rows += [(f"hint: {name}", shown), (f"control: {name}", images)]
    return table, rows


def follows(scenes: list[Scene], images: list[Picture]) -> dict[str, float]:
    """The share of pictures with shapes at all the scene's places and no other; of attributes."""
    exact = [
        {item.place for item in scene.items} == {item.place for item in read(image).items}
        for scene, image in zip(scenes, images, strict=True)
    ]
    return {"places": sum(exact) / len(exact)} | {
        f"attributes_{kind}": share for kind, share in judge(scenes, images).items()
    }


def contact_sheet(rows: Rows) -> Image.Image:
    """A labelled row for each set of pictures, the first COLUMNS of it."""
    step = SIDE + _GAP
    height = len(rows) * (step + _TEXT) + _GAP
    sheet = Image.new("RGB", (COLUMNS * step + _GAP, height), _PAPER)
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for n, (label, images) in enumerate(rows):
        y = _GAP + n * (step + _TEXT)
        drawing.text((_GAP, y), label, _INK, font)
        for m, image in enumerate(images[:COLUMNS]):
            sheet.paste(Image.fromarray(image), (_GAP + m * step, y + _TEXT))
    return sheet


def main() -> None:
    """Print one JSON object; write the sheet where asked."""
    options = _options()
    torch.set_num_threads(options.threads)
    pipeline = load()
    scenes = held_out_scenes(options.scenes, SCENES_SEED)
    styles, style_rows = judge_styles(pipeline, options.loras, scenes)
    controls, control_rows = judge_controls(pipeline, options.controls, scenes)
    print(json.dumps({"scenes": len(scenes), "styles": styles, "controls": controls}, indent=2))
    if options.contact_sheet:
        sheet = contact_sheet([*style_rows, *control_rows])
        sheet.save(options.contact_sheet, optimize=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pocket.gallery", description=__doc__)
    parser.add_argument("--contact-sheet", type=Path, help="also write rows of pictures here")
    parser.add_argument("--loras", type=Path, default=LORAS)
    parser.add_argument("--controls", type=Path, default=CONTROLS)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
