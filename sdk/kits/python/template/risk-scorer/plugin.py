"""{{name}}: how likely is this node to fail? A GPU error that the driver reported, then memory that runs full."""

import json
import math

from wit_world.exports import scoring
from wit_world.imports.types import (
    Aggregation,
    Contribution,
    Description,
    EventInput,
    Input_Events,
    Input_Metric,
    Level,
    MetricInput,
    Observation,
    Risk,
)

MEMORY, XID = 0, 1  # indices of the declared inputs
LEAST_SAMPLES = 3
NEAR = 0.1  # this much below the threshold is elevated

SCHEMA = {
    "type": "object",
    "properties": {"threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.9}},
    "additionalProperties": False,
}
settings = {"threshold": 0.9}


class Plugin:
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Rates GPU errors and memory that runs full.",
            inputs=[
                Input_Metric(
                    MetricInput("system.memory.utilization", unit="1", window=60_000, step=5_000, aggregation=Aggregation.MEAN)
                ),
                Input_Events(EventInput("aether.gpu.xid", window=60_000, at_most=16)),
            ],
            config_schema=json.dumps(SCHEMA),
        )

    def configure(self, config: str) -> None:
        # The host has checked the config against the schema.
        settings.update(json.loads(config))


class Scoring:
    def score(self, observation: Observation) -> scoring.Assessment:
        errors = [event for event in observation.events if event.input == XID]
        if errors:
            attributes = {attribute.key: attribute.value for attribute in errors[-1].attributes}
            xid = attributes.get("xid", "unknown")
            note = f"the driver of {observation.subject.id} reported Xid {xid}"
            return risk(Level.CRITICAL, 0.95, 0.9, None, f"gpu.xid.{xid}", XID, note)

        grid = next((column.values for column in observation.columns if column.input == MEMORY), [])
        # NaN means that nothing was sampled there.
        values = [value for value in grid if math.isfinite(value)]
        if len(values) < LEAST_SAMPLES:
            return scoring.Assessment_Insufficient(f"{len(values)} samples of memory use, of at least {LEAST_SAMPLES}")
        used = values[-1]
        if used >= settings["threshold"]:
            level, horizon, cause = Level.CRITICAL, 60_000, "memory.full"
        elif used >= settings["threshold"] - NEAR:
            level, horizon, cause = Level.ELEVATED, None, "memory.near-full"
        else:
            level, horizon, cause = Level.LOW, None, "memory.calm"
        note = f"memory is {100 * used:.0f} % full"
        return risk(level, used, len(values) / len(grid), horizon, cause, MEMORY, note)


def risk(
    level: Level, score: float, confidence: float, horizon: int | None, cause: str, input: int, note: str
) -> scoring.Assessment:
    contributions = [Contribution(input, weight=1.0, note=note)]
    return scoring.Assessment_Risk(Risk(level, score, confidence, horizon, cause, reason=note, contributions=contributions))
