"""What a process leaves out of its imports changes nothing of what it computes."""

import json
import subprocess
import sys

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.import_utils import is_transformers_available

from services.vae.autoencoder import Autoencoder
from shared.host.lean_imports import lean_diffusers
from shared.shipped import DEFAULT_MODEL
from tests.conftest import HANG_SECONDS

LEFT_OUT = ("peft", "sympy", "torch._dynamo", "transformers.modeling_utils")
VAE = """
import json, sys, torch
from shared.host.lean_imports import lean_diffusers
lean_diffusers()
from services.vae.autoencoder import Autoencoder
from shared.shipped import DEFAULT_MODEL
torch.set_num_threads(1)
latents = torch.linspace(-2.0, 2.0, 4 * 8 * 8).view(4, 8, 8)
[pixels] = Autoencoder(DEFAULT_MODEL, "cpu", torch.float32).decode([latents])
there = [name for name in LEFT_OUT if name in sys.modules]
import diffusers.models.autoencoders
from diffusers import AutoencoderTiny
print(json.dumps([pixels.tolist(), there, AutoencoderTiny.__name__]))
"""


def test_a_lean_process_computes_the_same_and_still_finds_what_was_left_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"LEFT_OUT = {LEFT_OUT}{VAE}"],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    pixels, there, name = json.loads(done.stdout)
    assert there == []
    assert name == "AutoencoderTiny"
    torch.set_num_threads(1)
    latents = torch.linspace(-2.0, 2.0, 4 * 8 * 8).view(4, 8, 8)
    [expected] = Autoencoder(DEFAULT_MODEL, "cpu", torch.float32).decode([latents])
    assert torch.equal(torch.tensor(pixels, dtype=torch.uint8), expected)


def test_where_diffusers_is_there_already_nothing_is_taken_away() -> None:
    assert ModelMixin is not None
    lean_diffusers()
    assert is_transformers_available()
