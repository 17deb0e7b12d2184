"""What a training shows while it runs: one progress bar with loss and reward."""

from typing import Any

from vltaxon.train import guards


def show_progress(trainer: Any) -> None:
    """Replace TRL's dictionary a step by one progress bar, and stop at the first loss that is no number."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    class Bar(ProgressCallback):  # type: ignore[misc]  # a class of a library without types
        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
        ) -> None:
            values = logs or {}
            guards.check_finite(state.global_step, values)
            if self.training_bar is not None:
                shown = {key: f"{values[key]:.3g}" for key in ("loss", "reward") if key in values}
                self.training_bar.set_postfix(shown)

    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
