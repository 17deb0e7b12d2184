"""Group-relative policy optimisation (DeepSeekMath, arXiv 2402.03300) by rewards, with TRL's GRPOTrainer."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from vltaxon import batches
from vltaxon.config.base import HOW, Closed
from vltaxon.config.steps import Column, Curve, Panel, Step
from vltaxon.errors import suggest
from vltaxon.parsing import restore
from vltaxon.train.rewards import Completion, find_rewards

if TYPE_CHECKING:
    from trl import GRPOTrainer

    from vltaxon.config.models import Speed
    from vltaxon.prepared import Prepared

_REWARD, _KL = Panel("GRPO reward", "mean reward"), Panel("GRPO KL to the start", "KL (nats per token)")
_LEVELS = Panel("GRPO reward by level", "mean reward")
_BY_LEVEL = "reward_level_"  # columns: the sum of rewards of the questions of a level
_SHARE_ALIKE = "frac_zero_variance"  # column: share of the groups whose completions all got the same reward


class WeightedReward(Closed):
    """A reward of `train/rewards`, and what it counts in the sum of rewards."""

    name: str = Field(description="File in vltaxon/train/rewards.", examples=["accuracy"])
    weight: FiniteFloat = 1.0

    @field_validator("name")
    @classmethod
    def _there(cls, name: str) -> str:
        if name not in find_rewards():
            raise ValueError(f'reward "{name}" is not {suggest(name, find_rewards())}')
        return name


class GrpoStep(Step):
    """A step of group-relative policy optimisation: completions of a prompt are compared by their rewards."""

    kind: Literal["grpo"]
    group_size: PositiveInt = Field(8, description="Completions per prompt.")
    rewards: tuple[WeightedReward, ...] = Field(
        (WeightedReward(name="format"), WeightedReward(name="accuracy")),
        min_length=1,
        description="What a completion is rewarded for, and with which weight in the sum.",
    )
    kl: float = Field(0.4, ge=0, description="Coefficient of the KL term.")
    temperature: PositiveFloat = 1.0
    clip: PositiveFloat = 0.2
    zero_variance_limit: Annotated[float, HOW] = Field(
        0.95, gt=0, le=1, description="Warn above this share of groups without variance."
    )
    generate: Literal["shared", "transformers", "vllm_colocate", "vllm_server"] = Field(
        "shared",
        description="What writes the completions. `shared` computes the prompt of a group once, to write and "
        "to learn; where a model does not allow that, TRL's way is taken (`transformers`) and the log says "
        "why. vLLM, on the training devices or at the address in VLTAXON_VLLM_SERVER (`trl vllm-serve`). "
        "Neither `shared` nor vLLM was yet run on a GPU by us.",
    )

    @model_validator(mode="after")
    def _of_single_turns_and_rewards(self) -> Self:
        if any(sample.turns == "multi" for sample in self.samples):
            raise ValueError("samples: turns multi is not for grpo, which rewards a single answer")
        names = [reward.name for reward in self.rewards]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rewards: {', '.join(twice)} stands twice")
        return self

    # -- what it costs
    # -----------------------------------------------------------------------------------------------

    @property
    def rollouts(self) -> int:
        """How many completions are trained on for each sample: a group."""
        return self.group_size

    @property
    def new_tokens(self) -> int:
        """How many tokens may be added to a sample: those of a completion."""
        return self.max_new_tokens

    @property
    def least_samples(self) -> int:
        """How many samples one optimiser step needs: a prompt for each group."""
        return self.batch_size // self.group_size

    def steps(self, samples: int) -> int:
        """Return how many optimiser steps a number of samples makes: TRL drops an incomplete one."""
        return math.ceil(self.epochs * (samples // self.least_samples))

    def accumulation(self, world: int) -> int:
        """Return the gradient accumulation steps on `world` devices, of whole groups."""
        return batches.accumulation(self.batch_size, self.device_batch_size, world, self.group_size)

    def seconds(self, prompt: float, new: float, speed: "Speed") -> float:
        """Return how long one device trains; completions are generated first, and read by the reference.

        Args:
            prompt: tokens of all prompts, images included.
            new: tokens of all completions.
            speed: of the model on a device, in tokens a second.
        """
        return super().seconds(prompt, new, speed) + 2 * (prompt + new) / speed.prompt + new / speed.new

    # -- how it is trained
    # -------------------------------------------------------------------------------------------

    @classmethod
    def columns(cls) -> Mapping[str, Column]:
        """Return the columns of the curve: rewards and the KL term are drawn.

        The default rewards come first, then all others that there are.
        """
        default = cls.model_fields["rewards"].default
        names = dict.fromkeys([*(reward.name for reward in default), *find_rewards()])
        return {
            **super().columns(),
            "reward": Column("reward", _REWARD, "sum"),
            "reward_std": Column("reward_std"),
            **{f"rewards/{name}_reward/mean": Column(f"reward_{name}", _REWARD, name) for name in names},
            _BY_LEVEL: Column(_BY_LEVEL, _LEVELS, "level ", family=True),
            "kl": Column("kl", _KL),
            "completions/mean_length": Column("completion_length"),
            "completions/clipped_ratio": Column("truncated"),
            "frac_reward_zero_std": Column(_SHARE_ALIKE),
        }

    def check_environment(self) -> None:
        """Check that vLLM is there, where it is to write the completions."""
        from vltaxon.train import guards

        guards.check_vllm(self.generate)

    def trainer(self, prepared: "Prepared") -> "GRPOTrainer":
        """Return a GRPOTrainer.

        The loss is the paper's: mean over tokens, then over completions, with advantages scaled by the
        group's deviation; TRL's own default is DAPO's. With a KL term TRL copies the policy's adapter to a
        frozen `ref`, so the reference is the policy as it starts: the base model, or the SFT adapter.
        """
        from trl import GRPOConfig, GRPOTrainer

        from vltaxon import chat
        from vltaxon.train import guards
        from vltaxon.train.shared_group import SharedGroupTrainer

        guards.check_prompts(prepared, lambda row: (_asked(row, prepared.processor), None))
        opened = chat.opens_reasoning(prepared.processor)
        shared = self.generate == "shared"
        # A branched cache takes the place of activations that are computed again.
        checkpointing = {"gradient_checkpointing": False} if shared else {}
        config = GRPOConfig(
            **{**prepared.arguments, **checkpointing},
            num_generations=self.group_size,
            max_completion_length=self.max_new_tokens,
            temperature=self.temperature,
            top_p=1.0,
            top_k=0,
            beta=self.kl,
            epsilon=self.clip,
            num_iterations=1,  # so a state between two optimiser steps has no completions to keep
            loss_type="grpo",
            scale_rewards="group",
            importance_sampling_level="token",
            use_bias_correction_kl=False,
            mask_truncated_completions=False,
            shuffle_dataset=False,  # the draw has; TRL's is lost when a killed run goes on in a later epoch
            disable_dropout=True,  # a mask of its own in each pass would be paid for as if it were KL
            log_completions=False,
            log_multimodal=False,
            reward_weights=[reward.weight for reward in self.rewards],
            **self.vllm_arguments(prepared.lengths.longest),
        )

        def ends(token: int) -> bool:
            return token in trainer.eos_token_ids

        made = SharedGroupTrainer if shared else GRPOTrainer
        by_level = _ByLevel(self.rewards)
        trainer: GRPOTrainer = made(
            model=prepared.policy,
            reward_funcs=[_told_how_it_went(each, ends, opened, by_level) for each in self.rewards],
            args=config,
            train_dataset=prepared.rows,
            processing_class=prepared.processor,
        )
        return trainer

    def vllm_arguments(self, longest: int) -> dict[str, Any]:
        """Return where completions are written by vLLM. Not yet run by us.

        In colocate mode it shares the training devices; in server mode it is one that was started by `trl
        vllm-serve`.

        Args:
            longest: tokens of the longest sample, image included.
        """
        from vltaxon.train import guards

        if not self.generate.startswith("vllm"):
            return {}
        mode: dict[str, Any] = {"use_vllm": True, "vllm_mode": self.generate.removeprefix("vllm_")}
        if self.generate == "vllm_colocate":
            return mode | {"vllm_max_model_length": longest + self.max_new_tokens}
        return mode | {"vllm_server_base_url": os.environ[guards.VLLM_SERVER]}

    def findings(self, curve: Curve, prepared: "Prepared") -> dict[str, Any]:
        """Return the share of groups without variance and how the reward moved, as a whole and by level.

        It is warned of too large a share, and of levels that fell below their start.

        Args:
            curve: of the training.
            prepared: what it was trained with.
        """
        from vltaxon.train import guards

        shares = [value for _, column, value in curve if column == _SHARE_ALIKE]
        levels = sorted({column for _, column, _ in curve if column.startswith(_BY_LEVEL)})
        trends = {
            name.removeprefix(_BY_LEVEL): trend([value for _, column, value in curve if column == name])
            for name in levels
        }
        return {
            "zero_variance_share": guards.share_without_variance(shares, self.zero_variance_limit),
            "zero_variance_limit": self.zero_variance_limit,
            "reward": trend([value for _, column, value in curve if column == "reward"]),
            "reward_by_level": trends,
            "warnings": guards.warn_of_fallen(trends),
        }


def _asked(row: Mapping[str, Any], processor: Any) -> list[int]:
    """Return the tokens of a prompt as TRL has them for completions to be written."""
    from trl.data_utils import prepare_multimodal_messages

    shown = prepare_multimodal_messages(row["prompt"], images=[row["image"]])
    made = processor.apply_chat_template([shown], add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(made["input_ids"][0])


class _ByLevel:
    """Adds up the rewards of a batch, which TRL asks for one by one, and logs the sums by level."""

    def __init__(self, rewards: Sequence[WeightedReward]) -> None:
        self._last = rewards[-1].name
        self._sums: list[float] = []

    def add(
        self,
        of: WeightedReward,
        values: Sequence[float | None],
        levels: Sequence[int | None],
        log: Callable[[str, float], None],
    ) -> None:
        """Add a reward of each completion, and log once that is the last.

        Args:
            of: the reward.
            values: None where it does not apply.
            levels: of the questions; None of those for the leaf's name.
            log: takes a name and a value; TRL logs the mean of all that it was given, over all processes.
        """
        sums = self._sums or [0.0] * len(values)
        self._sums = [total + of.weight * (value or 0) for total, value in zip(sums, values, strict=True)]
        if of.name == self._last:
            for total, level in zip(self._sums, levels, strict=True):
                if level is not None:
                    log(f"{_BY_LEVEL}{level}", total)
            self._sums = []


def _told_how_it_went(
    of: WeightedReward, ends: Callable[[int], bool], opened: bool, by_level: _ByLevel
) -> Callable[..., list[float | None]]:
    """Return a reward as TRL calls it, which also gets the reason why each completion ended.

    TRL gives none; a completion was cut by the limit if its last token is none at which the trainer stops.
    Reasoning that the prompt has begun, or that TRL has put apart, is where the reader looks for it.
    """

    def whole(completion: Completion) -> Completion:
        said = completion[0]
        text = restore(
            said.get("content") or "", opened, said.get("reasoning_content") or said.get("thinking")
        )
        return [{"role": "assistant", "content": text}]

    reward = find_rewards()[of.name]

    def rewarded(
        completions: list[Completion],
        completion_ids: list[list[int]],
        log_metric: Callable[[str, float], None],
        **columns: Any,
    ) -> list[float | None]:
        reasons = ["stop" if ends(ids[-1]) else "length" for ids in completion_ids]
        values = reward(completions=list(map(whole, completions)), finish_reason=reasons, **columns)
        by_level.add(of, values, columns["level"], log_metric)
        return values

    rewarded.__name__ = f"{of.name}_reward"  # by which TRL's log calls it
    return rewarded


def trend(rewards: Sequence[float]) -> dict[str, float]:
    """Return whether the reward rose: its mean in the first and last third of the steps, and a test of order.

    That is Kendall's tau with the step, and its p. A test by ranks, since a step's mean is of few prompts and
    far from normal.
    """
    from scipy.stats import kendalltau

    third = max(1, len(rewards) // 3)
    first, last = (sum(part) / third for part in (rewards[:third], rewards[-third:]))
    told = {"first_third": first, "last_third": last}
    if len(set(rewards)) < 2:  # has no order
        return told | {"tau": 0.0, "p": 1.0}
    tau = kendalltau(range(len(rewards)), rewards)
    return told | {"tau": float(tau.statistic), "p": float(tau.pvalue)}
