"""Validation during training: both kinds of weights, to TensorBoard and as one line."""

from __future__ import annotations

from pipelines import augment, board, devices, evaluate, inputs, records
from pipelines.config import Config


def line(step: int, results: dict, best: bool) -> str:
    """One line of a validation's means."""
    means = {kind: part["PCKh@0.5"]["mean14"] for kind, part in results.items()}
    text = ", ".join(f"{kind} {mean:.2f}" for kind, mean in means.items())
    return f"step {step}: validation mean14 PCKh@0.5 {text or 'none'}{' (best)' if best else ''}"


def make(config: Config, strategy, info, network, averaged, mean=augment.MEAN):
    """A function that validates both kinds of weights and logs them.

    Returns:
      function(writer, step) -> {"raw": results, "averaged": results}, empty without a validation
      split.
    """
    if not info.splits.get("validation", {}).get("people"):
        print(f"{config.records} has no validation split: nothing will be validated")
        return lambda writer, step: {}
    records.check_shards(info, "validation")
    how = evaluate.how(config)
    facts, mirror = inputs.facts(info, "validation"), info.skeleton.mirror
    networks = {"raw": network, **({"averaged": averaged} if averaged is not None else {})}
    predicts = {
        weights: evaluate.make_predict(strategy, one, mirror=mirror, mean=mean, **how)
        for weights, one in networks.items()
    }
    batch = devices.round_up(config.evaluation_batch, strategy)
    dataset = inputs.evaluation(info, "validation", batch=batch)

    def validate(writer, step: int) -> dict:
        results = {}
        for weights, predict_batch in predicts.items():
            found, _ = evaluate.predict(strategy, predict_batch, dataset, facts)
            results[weights] = evaluate.score(facts, found, info.skeleton)
            board.write_validation(writer, step, weights, results[weights])
        last = averaged if averaged is not None else network
        shown = evaluate.picture(last, info, "validation", mean=mean, **how)
        board.write_pictures(writer, step, shown, info.skeleton)
        return results

    return validate
