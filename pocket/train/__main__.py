"""`python -m pocket.train`: autoencoder, text encoders, UNet, export; resumes where it stopped."""

import argparse
import math
import time
from pathlib import Path

import torch

from pocket.paint import MODEL
from pocket.train.autoencoder import train_autoencoder
from pocket.train.export import export
from pocket.train.run import Run
from pocket.train.text import train_text
from pocket.train.unet import train_unet


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
    vae = train_autoencoder(run)
    text = train_text(run)
    unet = train_unet(run, vae, text)
    export(options.out, vae, text, unet)
    print(f"{'stopped early' if run.out_of_time() else 'done'}: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pocket.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="where the pipeline goes")
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
    return parser.parse_args()


if __name__ == "__main__":
    main()
