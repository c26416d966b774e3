// {{name}}: may this plan run? What cannot be undone or touches too much may not, the rest needs people.
package export_aether_plugin_gating

import (
	"fmt"

	"component/bindings/aether_plugin_gating"
	"component/bindings/aether_plugin_types"
	"component/export_aether_plugin_plugin"

	. "go.bytecodealliance.org/pkg/wit/types"
)

const minuteMs = 60_000

// An error is a fault of the component, which denies.
func Judge(question aether_plugin_gating.Question) Result[aether_plugin_gating.Judgement, string] {
	title, maxNodes := question.Proposal.Title, export_aether_plugin_plugin.Settings.MaxNodes
	switch {
	case len(question.Proposal.Steps) == 0:
		return Err[aether_plugin_gating.Judgement]("the proposal has no steps")
	case question.Class == aether_plugin_types.SafetyClassDestructive:
		text := fmt.Sprintf("\"%s\" cannot be undone", title)
		return judgement(aether_plugin_gating.MakeVerdictDeny(), reason("gate.destructive", text))
	case question.Blast.Nodes > maxNodes:
		text := fmt.Sprintf("%d nodes are touched, of at most %d", question.Blast.Nodes, maxNodes)
		return judgement(aether_plugin_gating.MakeVerdictDeny(), reason("gate.blast-radius", text))
	case question.DryRun || question.Class == aether_plugin_types.SafetyClassReadOnly:
		return judgement(aether_plugin_gating.MakeVerdictAllow(), reason("gate.harmless", "nothing is changed"))
	}

	// Once more with care after a failure; an outcome that nobody knows counts as one.
	var reasons []aether_plugin_types.Reason
	for _, activity := range question.Recent {
		if !activity.Succeeded.SomeOr(false) {
			text := fmt.Sprintf("%s on %s did not succeed", activity.Verb, activity.TargetId)
			reasons = append(reasons, reason("gate.recent-failure", text))
		}
	}
	demand := aether_plugin_gating.Demand{
		Approvers:     1,
		Role:          "approver",
		ApproveWithin: 15 * minuteMs,
		ExecuteWithin: 5 * minuteMs,
	}
	if len(reasons) > 0 {
		demand.Approvers, demand.Comment = 2, true
	}
	reasons = append(reasons, reason("gate.approval", fmt.Sprintf("\"%s\" changes what runs", title)))
	return judgement(aether_plugin_gating.MakeVerdictRequireApproval(demand), reasons...)
}

func reason(code, text string) aether_plugin_types.Reason {
	return aether_plugin_types.Reason{Code: code, Text: text}
}

func judgement(
	verdict aether_plugin_gating.Verdict, reasons ...aether_plugin_types.Reason,
) Result[aether_plugin_gating.Judgement, string] {
	return Ok[aether_plugin_gating.Judgement, string](aether_plugin_gating.Judgement{Verdict: verdict, Reasons: reasons})
}
