"""{{name}}: may this plan run? What cannot be undone or touches too much may not, the rest needs people."""

import json

from componentize_py_types import Err
from wit_world.exports.gating import (
    Demand,
    Judgement,
    Question,
    Verdict,
    Verdict_Allow,
    Verdict_Deny,
    Verdict_RequireApproval,
)
from wit_world.imports.types import Description, Reason, SafetyClass

MINUTE_MS = 60_000

SCHEMA = {
    "type": "object",
    "properties": {"max_nodes": {"type": "integer", "minimum": 0, "default": 4}},
    "additionalProperties": False,
}
settings = {"max_nodes": 4}


class Plugin:
    def describe(self) -> Description:
        return Description(
            name="{{name}}",
            version="0.1.0",
            summary="Denies what cannot be undone or touches too many nodes; asks people about the rest.",
            inputs=[],  # a gate reads no telemetry: its question holds all it needs
            config_schema=json.dumps(SCHEMA),
        )

    def configure(self, config: str) -> None:
        # The host has checked the config against the schema.
        settings.update(json.loads(config))


class Gating:
    # What is raised is a fault of the component, which denies.
    def judge(self, question: Question) -> Judgement:
        title, blast = question.proposal.title, question.blast
        if not question.proposal.steps:
            raise Err("the proposal has no steps")

        if question.class_ == SafetyClass.DESTRUCTIVE:
            return settled(Verdict_Deny(), "gate.destructive", f'"{title}" cannot be undone')
        if blast.nodes > settings["max_nodes"]:
            text = f"{blast.nodes} nodes are touched, of at most {settings['max_nodes']}"
            return settled(Verdict_Deny(), "gate.blast-radius", text)
        if question.dry_run or question.class_ == SafetyClass.READ_ONLY:
            return settled(Verdict_Allow(), "gate.harmless", "nothing is changed")

        # Once more with care after a failure; an outcome that nobody knows counts as one.
        failed = [activity for activity in question.recent if activity.succeeded is not True]
        reasons = [
            Reason("gate.recent-failure", f"{activity.verb} on {activity.target_id} did not succeed") for activity in failed
        ]
        reasons.append(Reason("gate.approval", f'"{title}" changes what runs'))
        approvers = 2 if failed else 1
        demand = Demand(
            approvers,
            role="approver",
            approve_within=15 * MINUTE_MS,
            execute_within=5 * MINUTE_MS,
            comment=approvers > 1,
        )
        return Judgement(Verdict_RequireApproval(demand), reasons)


def settled(verdict: Verdict, code: str, text: str) -> Judgement:
    return Judgement(verdict, [Reason(code, text)])
