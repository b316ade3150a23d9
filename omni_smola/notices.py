"""What a run says of itself before it trains, so that nothing is adapted or cut in silence."""

from omni_smola.run import Run, say
from omni_smola.training import distributed, optimizer

_LOOKED_AT = 200  # examples of each task whose prompts and targets are measured before training


def say_adapted(run: Run) -> None:
    """Tells what of prompts and targets is cut, and that the warm-up is shorter than its default.

    Of prompts and targets some hundred examples of each task are looked at, on one host.
    """
    config = run.config
    warmup = optimizer.warmup_steps(config.optimizer, config.steps)
    if warmup != config.optimizer.warmup and config.steps:
        say(
            f"the warm-up is {warmup} steps, not {config.optimizer.warmup}, as the run has "
            f"{config.steps}; set it by --config.optimizer.warmup"
        )
    if not distributed.is_primary() or not config.steps:
        return
    from omni_smola.data import inspect

    for summary in inspect.summarize(
        run.rates,
        split=config.data.train_split,
        prompt_length=config.data.prompt_length,
        frame_length=run.framing.extra,
        target_length=config.data.target_length,
        seed=config.seed,
        examples=_LOOKED_AT,
        samples=0,
        skip=config.data.on_error == "skip",
    ):
        for line in summary.cut_lines():
            say(line)
