"""GRPO in which the completions of a group share the work on their prompt, with its image.

TRL computes the prompt of each completion by itself: in its prefill, for the reference, for the policy and
backward. Here it is computed once a group: rollouts branch the cache of its one prefill
(`inference.shared_prefix`), and log-probabilities branch the cache of its one forward pass, through which
gradients flow back. What comes out is TRL's but for rounding, and is compared with TRL's on the first batch.

It takes three private places of TRL: how log-probabilities are computed, how a batch of completions is
shuffled (groups must stay together; the loss is a mean over equal micro-batches either way), and how
completions are written. A test compares a whole step with TRL's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import DynamicCache
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from vltaxon import chat
from vltaxon.inference import shared_prefix
from vltaxon.inference.shared_prefix import Group, NotShared, SharedPrefix, Tokens

_OF_ROWS = ("mm_token_type_ids", "token_type_ids")  # inputs by token, of prompt and completion
_OF_IMAGES = ("image_grid_thw", "image_sizes")
_ROWS_WITHOUT_GRADIENT = 4  # times as many are read at once


class SharedGroupTrainer(GRPOTrainer):  # type: ignore[misc]  # a class of a library without types
    """A GRPOTrainer in which a group shares the work on its prompt, where the model allows."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        """Make TRL's trainer, and look whether groups can share."""
        super().__init__(*args, rollout_func=_write_groups, **keywords)
        self.not_shared: str | None = (
            "the weights are spread over processes" if self.is_fsdp_enabled else None
        )
        self._compared = False
        policy = self.accelerator.unwrap_model(self.model)
        self._engine = SharedPrefix(policy.get_base_model())
        policy.forward = _Dispatch(policy.forward, self._engine)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Keep groups together, which TRL would shuffle apart before it cuts a batch into micro-batches.

        TRL also has the image of a group made ready for each of its completions; here it is once.
        """
        shuffle = grpo_trainer.shuffle_sequence_dict
        grpo_trainer.shuffle_sequence_dict = lambda batch: batch
        try:
            with _images_once(self.processing_class):
                return super()._prepare_inputs(generation_batch)
        finally:
            grpo_trainer.shuffle_sequence_dict = shuffle

    def _generate(self, prompts: Any) -> Any:
        """Write completions as TRL does where groups cannot share."""
        share: Any = self.rollout_func  # type: ignore[has-type]  # of TRL
        self.rollout_func = None if self.not_shared else share
        try:
            return super()._generate(prompts)
        except NotShared as reason:
            self._give_up(reason)
            self.rollout_func = None
            return super()._generate(prompts)
        finally:
            self.rollout_func = share

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **given: Any
    ) -> Any:
        """Return log-probabilities and entropies as TRL does, with prompts computed once a group."""

        def as_trl() -> Any:
            return GRPOTrainer._get_per_token_logps_and_entropies(
                self, model, input_ids, attention_mask, logits_to_keep, *args, **given
            )

        if self.not_shared is not None or args or given.get("compute_aux_loss"):
            return as_trl()
        try:
            found = self._share(model, input_ids, attention_mask, logits_to_keep, **given)
            if not self._compared:
                self._compare(found[0], as_trl()[0], attention_mask[:, -logits_to_keep:])
                self._compared = True
        except NotShared as reason:
            self._give_up(reason)
            return as_trl()
        return found

    def _share(
        self,
        model: Any,
        ids: torch.Tensor,
        mask: torch.Tensor,
        keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        num_images: Sequence[int] | None = None,
        num_tiles: Sequence[int] | None = None,
        **inputs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        size = batch_size or len(ids)
        if not torch.is_grad_enabled():  # what no layer keeps for its gradient leaves room for more rows
            size *= _ROWS_WITHOUT_GRADIENT
        given = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        if num_images is None or any(number != 1 for number in num_images):
            raise NotShared("a prompt has not one image")
        logps, entropies = [], []
        for start in range(0, len(ids), size):
            rows = range(start, min(start + size, len(ids)))
            part = _Rows(ids, mask, keep, given, num_tiles).some(rows)
            with self.accelerator.autocast():
                logp, entropy = model(shared=part)
            logps.append(logp)
            entropies.append(entropy)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _compare(self, found: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor) -> None:
        """Compare the first log-probabilities with TRL's.

        Raises:
            NotShared: they differ by more than rounding does.
        """
        gap = (found - wanted).detach().abs()[mask.bool()]
        exact = self.accelerator.unwrap_model(self.model).dtype == torch.float32
        if not (gap.max() <= 2e-3 if exact else gap.mean() <= 0.05):
            raise NotShared(
                f"log-probabilities differ from those of whole prompts by {gap.mean():.3g} on average, "
                f"{gap.max():.3g} at most"
            )

    def _give_up(self, reason: NotShared) -> None:
        self.not_shared = str(reason)
        print(f"completions of a group do not share their prompt from here on: {reason}", flush=True)


def _by_image(
    name: str, value: torch.Tensor, grid: torch.Tensor | None, tiles: Sequence[int] | None = None
) -> Sequence[torch.Tensor]:
    """Return what of an input is each image's: by patches, by tiles, or one each."""
    sizes: list[int] = [1] * len(value)
    if grid is not None and name == "pixel_values":
        sizes = grid.prod(-1).tolist()
    elif tiles is not None:
        sizes = list(tiles)
    parts: Sequence[torch.Tensor] = value.split(sizes)
    return parts


class _Once:
    """An image processor that makes an image ready once, however often it stands among those of a batch."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

    def __call__(self, images: Any, *args: Any, **given: Any) -> Any:
        flat = [image for some in images for image in (some if isinstance(some, list) else [some])]
        once = {id(image): image for image in flat}
        made = self._of([[image] for image in once.values()], *args, **given)
        place = {key: number for number, key in enumerate(once)}
        split = {name: _by_image(name, value, made.get("image_grid_thw")) for name, value in made.items()}
        if any(len(parts) != len(once) for parts in split.values()):  # tiles, of which nobody tells how many
            return self._of(images, *args, **given)
        places = [place[id(image)] for image in flat]
        made.data = {name: torch.cat([parts[i] for i in places]) for name, parts in split.items()}
        return made


@contextmanager
def _images_once(processor: Any) -> Iterator[None]:
    """Have the processor of a model make an image ready once a batch."""
    of = processor.image_processor
    processor.image_processor = _Once(of)
    try:
        yield
    finally:
        processor.image_processor = of


class _Rows:
    """Rows of prompts and completions with their images' inputs, of which some can be taken."""

    def __init__(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        keep: int,
        inputs: Mapping[str, torch.Tensor],
        tiles: Sequence[int] | None,
    ) -> None:
        self.ids, self.mask, self.keep, self.inputs, self.tiles = ids, mask, keep, inputs, tiles

    def some(self, rows: Sequence[int]) -> "_Rows":
        """Return some of the rows."""
        at = torch.tensor(list(rows), device=self.ids.device)
        tiles = None if self.tiles is None else [self.tiles[row] for row in rows]
        inputs = {name: self._of(name, value, list(rows), at) for name, value in self.inputs.items()}
        return _Rows(self.ids[at], self.mask[at], self.keep, inputs, tiles)

    def _of(self, name: str, value: torch.Tensor, rows: list[int], at: torch.Tensor) -> torch.Tensor:
        if name in _OF_ROWS or name in _OF_IMAGES:
            return value[at]
        parts = self._pixels(name, value)
        return torch.cat([parts[row] for row in rows])

    def _pixels(self, name: str, value: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return what of an input of pixels is each row's."""
        parts = _by_image(name, value, self.inputs.get("image_grid_thw"), self.tiles)
        if len(parts) != len(self.ids):
            raise NotShared(f"{name} is of {len(parts)} images, and there are {len(self.ids)} prompts")
        return parts

    def firsts(self) -> tuple[list[int], list[int]]:
        """Return the first row of each group (neighbours of one prompt and image), and each row's group."""
        prompts = self.ids[:, : self.ids.shape[1] - self.keep]
        pixels = {name: self._pixels(name, value) for name, value in self.inputs.items() if "pixel" in name}
        firsts, groups = [0], [0]
        for row in range(1, len(prompts)):
            before = firsts[-1]
            same = torch.equal(prompts[row], prompts[before]) and all(
                parts[row].shape == parts[before].shape and torch.equal(parts[row], parts[before])
                for parts in pixels.values()
            )
            if not same:
                firsts.append(row)
            groups.append(len(firsts) - 1)
        return firsts, groups


class _Dispatch:
    """The forward of a policy that also takes groups: so it is called through whatever wraps the policy.

    Gradients of several processes are averaged only if the pass goes through their wrapper's forward.
    """

    def __init__(self, forward: Any, engine: SharedPrefix) -> None:
        self._forward, self._engine = forward, engine

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        rows = keywords.pop("shared", None)
        if rows is None:
            return self._forward(*args, **keywords)
        return read_groups(self._forward, self._engine, rows)


def read_groups(forward: Any, engine: SharedPrefix, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities of completions, and entropies, each prompt computed once a group.

    Args:
        forward: of the policy, as TRL has patched it: it gives log-probabilities without holding logits.
        engine: of the same model.
        rows: prompts and completions; those of a group lie side by side.

    Returns:
        shape (rows, tokens of a completion) each.
    """
    firsts, groups = rows.firsts()
    first, width = rows.some(firsts), rows.ids.shape[1] - rows.keep
    by_token = {name: first.inputs[name][:, : width - 1] for name in _OF_ROWS if name in first.inputs}
    prompts = {"input_ids": first.ids[:, : width - 1], "attention_mask": first.mask[:, : width - 1]}
    cache, following = engine.read(prompts | {**first.inputs, **by_token})
    at = torch.tensor(groups, device=rows.ids.device)
    _branch(cache, at)
    ids, own = rows.ids[:, width - 1 :], rows.mask[:, width - 1 :]
    labels = ids.masked_fill(own == 0, -100)
    labels[:, 0] = -100  # the last token of the prompt
    out = forward(
        input_ids=ids,
        attention_mask=torch.cat([prompts["attention_mask"][at], own], dim=1),
        position_ids=engine.positions(following[at], ids.shape[1]),
        past_key_values=cache,
        use_cache=True,
        labels=labels,
        fused_lm_head=True,
    )
    return out.log_probs[:, -rows.keep :], out.entropy[:, -rows.keep :]


def _branch(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Give each row the cache of its group, so that gradients flow back into it."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]


@contextmanager
def _merged(policy: Any) -> Iterator[None]:
    """Have the adapter in the weights, and the very weights back after: unmerging would leave rounding."""
    kept = [
        (layer, layer.base_layer.weight, layer.base_layer.weight.data)
        for layer in policy.modules()
        if hasattr(layer, "lora_A")
    ]
    try:
        for layer, weight, data in kept:
            delta = sum(layer.get_delta_weight(name) for name in layer.active_adapters)
            weight.data = (data + delta).to(data.dtype)  # an adapter of a model in half precision is in full
            layer._disable_adapters = True
        yield
    finally:
        for layer, weight, data in kept:
            weight.data = data
            layer._disable_adapters = False


def _write_groups(prompts: Sequence[Any], trainer: SharedGroupTrainer) -> dict[str, Any]:
    """Write the completions of a batch, as TRL calls it.

    Args:
        prompts: messages with images; those of a group lie side by side.
        trainer: of the policy.

    Returns:
        tokens of prompts and completions; no log-probabilities, which are of the policy itself.

    Raises:
        NotShared: the model or the prompts do not allow it.
    """
    processor = trainer.processing_class
    texts = processor.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    groups = _grouped(texts, [_image_of(prompt) for prompt in prompts])
    tokenizer, limit = processor.tokenizer, trainer.max_completion_length
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        batch = shared_prefix.prepare(processor, groups, chat.adds_start(tokenizer, texts[0]))
    finally:
        tokenizer.padding_side = side
    never = list(trainer.generation_config.suppress_tokens or ())

    def pick(alive: list[int], logits: torch.Tensor, new: list[Tokens]) -> torch.Tensor:
        logits = logits / trainer.temperature
        logits[:, never] = -torch.inf  # as TRL: an image token in a completion would want an image
        return torch.multinomial(logits.softmax(-1), 1).squeeze(1)

    policy = trainer.accelerator.unwrap_model(trainer.model)
    trained = policy.training
    policy.eval()
    try:
        with torch.no_grad(), _merged(policy):
            engine = SharedPrefix(policy.get_base_model())
            state, logits = engine.prefill(batch, limit)
            written = engine.write(state, logits, limit, trainer.eos_token_ids, pick, lambda tokens: False)
    finally:
        policy.train(trained)
    return {"prompt_ids": batch.prompts, "completion_ids": written, "logprobs": None}


def _image_of(prompt: Sequence[Mapping[str, Any]]) -> Any:
    """Return the image of a prompt's messages."""
    parts = [
        part for message in prompt if isinstance(message["content"], list) for part in message["content"]
    ]
    images = [part["image"] for part in parts if part["type"] == "image"]
    if len(images) != 1:
        raise NotShared(f"a prompt has {len(images)} images")
    return images[0]


def _grouped(texts: Sequence[str], images: Sequence[Any]) -> list[Group]:
    """Return neighbours with one image object and one text as groups."""
    groups: list[tuple[list[str], Any]] = []
    for text, image in zip(texts, images, strict=True):
        if groups and groups[-1][1] is image and groups[-1][0][0] == text:
            groups[-1][0].append(text)
        else:
            groups.append(([text], image))
    return [Group(some, image) for some, image in groups]
