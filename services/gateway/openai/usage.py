"""What a job took, counted as OpenAI's API counts it."""

from services.gateway.openai.schemas import TokensDetails, Usage
from shared.messages import JobSpec
from shared.models.catalogue import Catalogue


def usage(spec: JobSpec, catalogue: Catalogue, text_tokens: int, images: int) -> Usage:
    """Of `images` images of the job, whose prompts have `text_tokens` tokens. An image is as many
    tokens as the network has positions for it."""
    card = catalogue.cards.get(spec.model) or catalogue.removed[spec.model]
    unit = card.size_multiple
    positions = (spec.width // unit) * (spec.height // unit)
    image_inputs = len(spec.controls) + (spec.edit is not None)
    given = TokensDetails(image_tokens=image_inputs * positions, text_tokens=text_tokens)
    drawn = TokensDetails(image_tokens=images * positions, text_tokens=0)
    return Usage(
        input_tokens=given.image_tokens + given.text_tokens,
        input_tokens_details=given,
        output_tokens=drawn.image_tokens,
        output_tokens_details=drawn,
        total_tokens=given.image_tokens + given.text_tokens + drawn.image_tokens,
    )
