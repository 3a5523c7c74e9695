"""Models by name, also those whose files are gone."""

import msgspec
import pytest

from shared.bus.unusable import Unusable
from shared.errors import InvalidRequest
from shared.messages.components import ServedModels
from shared.models.served import named, removable, without_model
from tests.helpers.factories import card, catalogue

GONE = Unusable(name="gone", source="/models/gone", kind="model", reason="no such directory")
LORA = Unusable(name="style", source="/loras/style", kind="lora", reason="it is torn")
SERVED = msgspec.structs.replace(catalogue(), unusable=(GONE, LORA))


def test_a_model_whose_files_are_gone_can_be_named_and_removed() -> None:
    assert named("MODEL", "gone", SERVED) is GONE
    assert removable("gone", SERVED) is GONE
    said = without_model(GONE)(ServedModels(added=("/models/gone",)))
    assert said == ServedModels(gone=("gone",))


def test_nothing_else_that_cannot_be_used_is_a_model() -> None:
    with pytest.raises(InvalidRequest, match=r"MODEL.*style.*pocket-sdxl, gone"):
        named("MODEL", "style", SERVED)


def test_the_last_one_that_is_served_stays() -> None:
    with pytest.raises(InvalidRequest, match="not the last"):
        removable(card().name, SERVED)
