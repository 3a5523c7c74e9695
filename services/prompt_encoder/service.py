"""The `encode` node: a job's prompts become the embeddings that all its rows share."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from services.prompt_encoder.encoding import Once, Prompt, Wide, encode_each
from shared.errors import NotFinite
from shared.jobs.graph import NEGATIVE
from shared.messages import ComponentReport
from shared.messages.handle import TensorHandle
from shared.messages.nodes import Encode
from shared.models.contracts.text_encoder import Encoded, TextEncoder, Unread
from shared.models.loras.library import AdapterLibrary
from shared.models.lowrank.bank import Use
from shared.policy.batch_bounds import ENCODING
from shared.services import NodeKind
from shared.worker.batched_compute import BatchedCompute
from shared.worker.task import Handler, Task


class PromptEncoder(Handler):
    """Holds the text encoders of `encoders` (by model name)."""

    kind: NodeKind = "encode"
    capacity = ENCODING.capacity

    def __init__(
        self,
        encoders: Mapping[str, TextEncoder],
        libraries: Mapping[str, AdapterLibrary],
        wide: Callable[[str], TextEncoder] | None = None,
    ) -> None:
        """`libraries`: the adapters of each model. `wide`: loads a model's encoders in float32;
        None: they are."""
        self._wide = wide
        self._encoders: dict[str, TextEncoder] = {}
        self._libraries: dict[str, AdapterLibrary] = {}
        self._compute: dict[str, BatchedCompute[Prompt, Once | NotFinite]] = {}
        for name, encoder in encoders.items():
            self.hold(name, encoder, libraries[name])

    def hold(self, name: str, encoder: TextEncoder, library: AdapterLibrary) -> None:
        """Nodes of model `name` can be run from now on."""
        self._encoders[name], self._libraries[name] = encoder, library
        self.models = tuple(self._encoders)
        self._compute[name] = BatchedCompute(
            f"encode-{name}",
            partial(encode_each, encoder, Wide(name, self._wide) if self._wide else None),
            max_batch=ENCODING.max_batch,
            max_waiting=2 * ENCODING.capacity,
        )

    async def drop(self, name: str) -> None:
        """No node of model `name` is in hand, or comes any more."""
        del self._encoders[name], self._libraries[name]
        self.models = tuple(self._encoders)
        await self._compute.pop(name).leave()

    async def run(self, task: Task) -> dict[str, TensorHandle]:
        """Outputs are the tensors of the family's conditioning, by their names; for guided jobs
        also those of the negative prompt, by the same names after `NEGATIVE`."""
        asked = task.parameters(Encode)
        uses = await self._libraries[task.model].uses(asked.loras)
        task.approximations.update(*(adapter.said for adapter, _ in uses))
        encoded = {"": await self._encode(task, Prompt(asked.prompt, uses))}
        if asked.guided:
            encoded[NEGATIVE] = await self._negative(task, encoded[""], uses)
        for prefix, half in encoded.items():
            task.warnings.update(cut_warnings(f"{prefix}prompt", half.unread))
        task.text_tokens = sum(half.tokens for half in encoded.values())
        return task.put_all(
            {
                f"{prefix}{name}": tensor
                for prefix, half in encoded.items()
                for name, tensor in half.tensors.items()
            }
        )

    async def _encode(self, task: Task, prompt: Prompt) -> Encoded:
        """Raises `NotFinite`."""
        found = await self._compute[task.model].submit(prompt)
        if isinstance(found, NotFinite):
            raise found
        task.progressed()
        if found.widened:
            task.warnings.add(
                "the text encoders computed in float32, for their dtype gave no finite numbers"
            )
        return found.encoded

    async def _negative(self, task: Task, positive: Encoded, uses: tuple[Use, ...]) -> Encoded:
        negative = task.parameters(Encode).negative_prompt
        if negative is None and self._encoders[task.model].zeros_for_empty_prompt:
            return positive.zeros()
        return await self._encode(task, Prompt(negative or "", uses))

    def components(self) -> list[ComponentReport]:
        """What is in hand, and how long it takes, for planners."""
        return [c.report(self.kind, name) for name, c in self._compute.items()]

    def close(self) -> None:
        """Let what is computed finish; nothing comes any more."""
        for compute in self._compute.values():
            compute.close()


def cut_warnings(field: str, unread: Sequence[Unread]) -> list[str]:
    """A sentence for each end of the prompt in `field` that encoders do not read."""
    encoders: dict[tuple[int, int, str], list[str]] = {}
    for cut in unread:
        encoders.setdefault((cut.limit, cut.tokens, cut.text), []).append(cut.encoder)
    return [
        f"{field}: {' and '.join(names)} read {limit} of its {tokens} tokens; what was cut is "
        + json.dumps(text.strip(), ensure_ascii=False)
        for (limit, tokens, text), names in encoders.items()
    ]
