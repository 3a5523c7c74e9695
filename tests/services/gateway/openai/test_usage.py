"""What a job took, as OpenAI's API counts."""

import msgspec

from services.gateway.openai.usage import usage
from shared.messages import EditSpec, JobSpec
from tests.helpers import factories


def test_pictures_are_positions_of_the_latents_and_texts_are_tokens() -> None:
    spec: JobSpec = factories.spec(n=2, width=64, height=128)
    found = usage(spec, factories.catalogue(), 9, images=2)
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (9, 256, 265)
    patched = factories.catalogue(factories.card(size_multiple=16))
    assert usage(spec, patched, 9, images=2).output_tokens == 64


def test_pictures_that_were_sent_count_as_those_that_are_drawn() -> None:
    edit = EditSpec(strength=1.0, mask="none", mask_mode="exact")
    spec = factories.spec(width=64, height=64, controls=(factories.control(),) * 2)
    found = usage(msgspec.structs.replace(spec, edit=edit), factories.catalogue(), 9, images=1)
    assert found.input_tokens_details.image_tokens == 3 * 64
    assert (found.input_tokens, found.total_tokens) == (201, 265)
