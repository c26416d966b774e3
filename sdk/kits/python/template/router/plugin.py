"""{{name}}: where should this work go? To the node with the most free memory."""

import json
import math

from wit_world.exports.routing import Choice, Question, Question_Message
from wit_world.imports.types import Aggregation, Description, Input_Metric, MetricInput, Observation, Reason

MEMORY = 0  # index of the declared input

SCHEMA = {
    "type": "object",
    "properties": {"full_at": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.95}},
    "additionalProperties": False,
}
settings = {"full_at": 0.95}


class Plugin:
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Ranks nodes by free memory.",
            # Of each node.
            inputs=[
                Input_Metric(
                    MetricInput("system.memory.utilization", unit="1", window=60_000, step=5_000, aggregation=Aggregation.LAST)
                )
            ],
            config_schema=json.dumps(SCHEMA),
        )

    def configure(self, config: str) -> None:
        # The host has checked the config against the schema.
        settings.update(json.loads(config))


class Routing:
    # Choices, best first. What is left out was not chosen.
    def route(self, question: Question) -> list[Choice]:
        if isinstance(question, Question_Message):
            to = [attribute.value for attribute in question.value.attributes if attribute.key == "to"]
            return [choice(id, 1.0, "router.addressed", "the message names its receiver") for id in to]
        ranked = [rank(node) for node in question.value.nodes]
        # Equal ones in order of id, so that the answer does not depend on the order of the question.
        return sorted((best for best in ranked if best), key=lambda best: (-best.score, best.id))


def rank(node: Observation) -> Choice | None:
    column = next((column for column in node.columns if column.input == MEMORY), None)
    # NaN means that nothing was sampled there.
    values = [value for value in column.values if math.isfinite(value)] if column else []
    if not values:
        return choice(node.subject.id, 0.0, "router.unknown", "nothing was sampled within the minute")
    used = values[-1]
    if used >= settings["full_at"]:
        return None
    text = f"memory is {100 * used:.0f} % full"
    return choice(node.subject.id, 1 - used, "router.memory", text)


def choice(id: str, score: float, code: str, text: str) -> Choice:
    return Choice(id, score, Reason(code, text))
