"""Group-relative policy optimisation (DeepSeekMath, arXiv 2402.03300) with VL-Taxon's rewards, by TRL's GRPOTrainer."""

import os
from typing import TYPE_CHECKING, Any

from vltaxon.train import guards, rewards

if TYPE_CHECKING:
    import datasets
    from peft import PeftModel
    from transformers import ProcessorMixin
    from trl import GRPOTrainer

    from vltaxon.config import Step


def trainer(
    policy: "PeftModel",
    processor: "ProcessorMixin",
    rows: "datasets.Dataset",
    step: "Step",
    arguments: dict[str, Any],
    longest: int,
) -> "GRPOTrainer":
    """A GRPOTrainer for rows of `samples.dataset`.

    The loss is the paper's: mean over tokens, then over completions, with advantages scaled by the group's deviation; TRL's
    own default is DAPO's. With a KL term TRL copies the policy's adapter to a frozen `ref`, so the reference is the policy
    as it starts: the base model, or the SFT adapter.

    Args:
        policy: base model with the adapter to train, loaded as trainable.
        processor: of the base model.
        rows: prompt, image and the columns that the rewards read.
        step: group size, KL coefficient, clip and sampling.
        arguments: `arguments.common`.
        longest: tokens of the longest prompt, for vLLM.
    """
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        **arguments,
        num_generations=step.group_size,
        max_completion_length=step.max_new_tokens,
        temperature=step.temperature,
        top_p=1.0,
        top_k=0,
        beta=step.kl,
        epsilon=step.clip,
        num_iterations=1,  # with the generation batch of one optimiser step: a checkpoint between two has no rollouts to keep
        loss_type="grpo",
        scale_rewards="group",
        importance_sampling_level="token",
        use_bias_correction_kl=False,
        mask_truncated_completions=False,
        shuffle_dataset=False,  # `samples.draw` has, and TRL's own order is lost when a killed run goes on in a later epoch
        log_completions=False,
        log_multimodal=False,
        **_vllm(step, longest),
    )

    def accuracy_reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        """TRL gives no finish reason; a completion was cut by the limit if its last token is none at which this trainer stops."""
        reasons = ["stop" if ids[-1] in made.eos_token_ids else "length" for ids in completion_ids]
        return rewards.accuracy_reward(finish_reason=reasons, **columns)

    functions: list[Any] = [rewards.format_reward, accuracy_reward]
    made = GRPOTrainer(model=policy, reward_funcs=functions, args=config, train_dataset=rows, processing_class=processor)
    return made


def _vllm(step: "Step", longest: int) -> dict[str, Any]:
    """Where completions are written by vLLM. Not yet run by us.

    In colocate mode it shares the training devices; in server mode it is one that was started by `trl vllm-serve`.
    """
    if step.generate == "transformers":
        return {}
    given: dict[str, Any] = {"use_vllm": True, "vllm_mode": step.generate.removeprefix("vllm_")}
    if step.generate == "vllm_colocate":
        return given | {"vllm_max_model_length": longest + step.max_new_tokens}
    return given | {"vllm_server_base_url": os.environ[guards.VLLM_SERVER]}
