"""The tensors of the conditioning have names, which families alone know."""

import ast
from pathlib import Path

import msgspec
import pytest
import torch

from services.denoiser.rows.row import Row
from services.denoiser.sampling.step_table import build_step_table
from shared.errors import InvalidRequest
from shared.messages import CfgBranchRequest, decode, encode, named_handles
from shared.messages.handle import TensorHandle
from shared.models.contracts.family import Family
from shared.models.contracts.network import Conditioning
from shared.models.families.registry import FAMILIES, family_of
from shared.shipped import MODELS
from shared.tensors.torch_io import put_tensor
from tests.helpers.memory_transport import MemoryTransport
from tests.services.denoiser.models import SHAPE
from tests.services.denoiser.sampling.test_step_table import SDXL

ROOT = Path(__file__).parents[2]
OUTPUTS = ("latents", "original", "shown", "profile", "image_", "hint-", "negative_")
"""What other outputs of a job's nodes are called, or begin with."""


class FormerHandles(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The conditioning of one image in messages from before it had names."""

    embeds: TensorHandle
    pooled: TensorHandle


class FormerHalf(msgspec.Struct, frozen=True, kw_only=True, tag="half"):
    job_id: str
    x: TensorHandle
    t: float
    numbers: tuple[float, ...]
    text: FormerHandles


def conditioning(**lengths: int | None) -> Conditioning:
    """By name: a sequence of so many tokens, or a vector."""
    tensors = {
        name: torch.full((1, 3) if length is None else (1, length, 3), float(k))
        for k, (name, length) in enumerate(lengths.items())
    }
    return Conditioning(tensors, torch.tensor([[1.0, 2.0]]))


def test_processes_before_and_after_names_read_each_other_s_messages() -> None:
    transport = MemoryTransport()
    x, embeds, pooled = (
        put_tensor(transport, torch.full((2,), float(k)), job_id="j", attempt=1, lifetime=9.0)
        for k in range(3)
    )
    text = FormerHandles(embeds=embeds, pooled=pooled)
    former = FormerHalf(job_id="j", x=x, t=5.0, numbers=(1.0,), text=text)
    now = CfgBranchRequest(job_id="j", x=x, t=5.0, scalars=(1.0,), text=(embeds, pooled))
    assert encode(former) == encode(now)
    assert decode(encode(now), FormerHalf) == former
    for family in FAMILIES[:2]:
        found = named_handles(family.conditioning, decode(encode(former), CfgBranchRequest).text)
        assert found == {"embeds": embeds, "pooled": pooled}


def test_handles_of_another_family_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 of them: embeds, pooled"):
        named_handles(("embeds", "pooled"), ())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.pipeline)
def test_names_are_no_other_outputs_of_a_job(family: type[Family]) -> None:
    assert family.conditioning
    assert not [name for name in family.conditioning if name.startswith(OUTPUTS)]


@pytest.mark.parametrize("source", MODELS.values(), ids=MODELS)
def test_widths_and_encoders_have_the_names_and_shapes_that_the_family_says(source: str) -> None:
    family = family_of(source)
    [encoded] = family.text_encoder("cpu", torch.float32)(["a red circle"])
    assert list(family.widths) == list(encoded.tensors) == list(family.conditioning)
    for name, tensor in encoded.tensors.items():
        assert tensor.dim() == {"sequence": 2, "vector": 1}[family.conditioning[name]]
        assert tensor.shape[-1] == family.widths[name]


def test_images_are_joined_name_by_name_whatever_a_family_calls_them() -> None:
    one, other = (
        conditioning(words=4, phrase=2, gist=None),
        conditioning(words=4, phrase=2, gist=None),
    )
    both = Conditioning.join([one, other])
    assert {name: tuple(each.shape) for name, each in both.tensors.items()} == {
        "words": (2, 4, 3),
        "phrase": (2, 2, 3),
        "gist": (2, 3),
    }
    assert both.lengths == (4, 2)
    assert both.images(slice(1, 2)).scalars.shape == (1, 2)


def test_both_halves_of_guidance_are_told_sequences_of_one_length() -> None:
    def row(uncond: Conditioning) -> Row:
        return Row(
            job_id="j",
            node="denoise-0",
            index=0,
            seed=1,
            table=build_step_table(SDXL, "euler", 4),
            shape=SHAPE,
            cond=conditioning(words=4, phrase=2),
            uncond=uncond,
            guidance=2.0,
        )

    assert row(conditioning(words=4, phrase=2)).shape_key.prompt == (4, 2)
    with pytest.raises(InvalidRequest, match="as many tokens as the prompt"):
        row(conditioning(words=2, phrase=4))


def test_no_service_knows_a_name() -> None:
    """Neither as an attribute, nor as a text or an argument."""
    names = {name for family in FAMILIES for name in family.conditioning}
    known = set()
    files = [*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py")]
    for file in files:
        if "families" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            word = getattr(node, "attr", getattr(node, "arg", getattr(node, "value", None)))
            if isinstance(word, str) and word in names:
                known.add(f"{file.relative_to(ROOT)}: {word}")
    assert not known
