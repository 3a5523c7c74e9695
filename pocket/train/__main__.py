"""`python -m pocket.train [model | flux | loras | controls]`: each resumes where it stopped.

`model` (the default) trains autoencoder, text encoders and UNet, and exports them. The others start
from the model that is shipped: `flux` trains a second one, with its autoencoder and a CLIP; `loras`
and `controls` train the add-ons, all or those that --only names.
"""

import argparse
import math
import time
from pathlib import Path

import torch

from pocket.addons import CONTROLS, LORAS
from pocket.hints import HINTS
from pocket.paint import FLUX, MODEL
from pocket.train.common.run import Run
from pocket.train.flux.export import export_flux
from pocket.train.flux.transformer import train_flux
from pocket.train.sdxl.autoencoder import train_autoencoder
from pocket.train.sdxl.controls import train_control
from pocket.train.sdxl.export import export
from pocket.train.sdxl.loras import RECIPES, train_lora
from pocket.train.sdxl.text import train_text
from pocket.train.sdxl.unet import train_unet

OUT = {"model": MODEL, "flux": FLUX, "loras": LORAS, "controls": CONTROLS}
ADD_ONS = {"loras": (train_lora, tuple(RECIPES)), "controls": (train_control, tuple(HINTS))}


def main() -> None:
    """Run every stage that is not finished yet."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    run = Run(
        options.work,
        options.seed,
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        time.monotonic() + 60 * options.minutes,
    )
    out = options.out or OUT[options.what]
    if options.what == "model":
        vae = train_autoencoder(run)
        text = train_text(run)
        unet = train_unet(run, vae, text)
        export(out, vae, text, unet)
    elif options.what == "flux":
        export_flux(out, *train_flux(run))
    else:
        train, names = ADD_ONS[options.what]
        for name in options.only or names:
            if not run.out_of_time():
                train(run, name, out)
    print(f"{'stopped early' if run.out_of_time() else 'done'}: {out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pocket.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=tuple(OUT), default="model")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the add-ons")
    parser.add_argument("--out", type=Path, help="where it goes; default: where it is shipped")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path.home() / ".cache" / "darkroom" / "pocket",
        help="checkpoints and curve.jsonl; a run resumes from what lies here",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop, saved and exported, after so long; run again to go on",
    )
    options = parser.parse_args()
    known = ADD_ONS[options.what][1] if options.what in ADD_ONS else ()
    if unknown := set(options.only or ()) - set(known):
        names = ", ".join(known) or "no add-ons"
        parser.error(f"--only {' '.join(sorted(unknown))}: {options.what} has {names}")
    return options


if __name__ == "__main__":
    main()
