"""{{name}}: what should be done about a node at risk? Its workloads move to the first candidate with room."""

import json
import math

from wit_world.exports.planning import Candidate, Finding
from wit_world.imports import log
from wit_world.imports.types import (
    Aggregation,
    Argument,
    Condition,
    Description,
    Input_Metric,
    MetricInput,
    Observation,
    OnFailure,
    Proposal,
    Step,
    Subject,
    Target,
    Value_Text,
    Verb,
)

MEMORY = 0  # index of the declared input
METRIC = "system.memory.utilization"
MIGRATE = "process.migrate"
FULL = 0.95

SCHEMA = {
    "type": "object",
    "properties": {"watch_ms": {"type": "integer", "minimum": 0, "maximum": 600_000, "default": 10_000}},
    "additionalProperties": False,
}
settings = {"watch_ms": 10_000}


class Plugin:
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Moves every workload of a node at risk to the first candidate with room.",
            # Of the subject and of each candidate.
            inputs=[Input_Metric(MetricInput(METRIC, unit="1", window=60_000, step=5_000, aggregation=Aggregation.LAST))],
            config_schema=json.dumps(SCHEMA),
        )

    def configure(self, config: str) -> None:
        # The host has checked the config against the schema.
        settings.update(json.loads(config))


class Planning:
    # Candidates come best first. No proposal: nothing can be done, and the log says why.
    def plan(
        self, finding: Finding, evidence: Observation, candidates: list[Candidate], catalogue: list[Verb]
    ) -> list[Proposal]:
        subject, workloads = finding.subject, finding.workloads
        if not any(verb.name == MIGRATE for verb in catalogue):
            log.write(log.Severity.WARN, f"the catalogue has no {MIGRATE}")
            return []
        if not workloads:
            log.write(log.Severity.INFO, f"nothing runs on {subject.id}")
            return []
        receiver = next((candidate.node for candidate in candidates if has_room(candidate)), None)
        if receiver is None:
            log.write(log.Severity.INFO, f"none of {len(candidates)} candidates has room")
            return []
        noun = "workload" if len(workloads) == 1 else "workloads"
        return [
            Proposal(
                title=f"Migrate {len(workloads)} {noun} from {subject.id} to {receiver.id}",
                rationale=finding.risk.reason,
                steps=[migrate(workload, receiver) for workload in workloads],
                success=[],
                watch=settings["watch_ms"],
                confidence=finding.risk.confidence,
            )
        ]


def has_room(candidate: Candidate) -> bool:
    """A candidate of which nothing is known has room: the precondition is checked on fresh evidence anyhow."""
    columns = (column for observation in candidate.free for column in observation.columns if column.input == MEMORY)
    sampled = ([value for value in column.values if math.isfinite(value)] for column in columns)
    return all(values[-1] <= FULL for values in sampled if values)


def migrate(workload: Subject, receiver: Subject) -> Step:
    return Step(
        verb=MIGRATE,
        target=target(workload),
        arguments=[Argument("to", Value_Text(receiver.id))],
        preconditions=[Condition(METRIC, target(receiver), minimum=None, maximum=FULL, fresh_within=15_000)],
        on_failure=OnFailure.COMPENSATE,
    )


def target(subject: Subject) -> Target:
    """A target is a subject of the generation that was given: one that was replaced since is refused."""
    return Target(subject.kind, subject.id, subject.generation)
