// {{name}}: what should be done about a node at risk? Its workloads move to the first candidate with room.
package export_aether_plugin_planning

import (
	"fmt"
	"math"
	"slices"

	"component/bindings/aether_plugin_log"
	"component/bindings/aether_plugin_planning"
	"component/bindings/aether_plugin_types"
	"component/export_aether_plugin_plugin"

	. "go.bytecodealliance.org/pkg/wit/types"
)

const (
	migrate = "process.migrate"
	full    = 0.95
)

// Candidates come best first. No proposal: nothing can be done, and the log says why.
func Plan(
	finding aether_plugin_planning.Finding,
	evidence aether_plugin_types.Observation,
	candidates []aether_plugin_planning.Candidate,
	catalogue []aether_plugin_types.Verb,
) Result[[]aether_plugin_types.Proposal, string] {
	nothing := Ok[[]aether_plugin_types.Proposal, string](nil)
	from, count := finding.Subject.Id, len(finding.Workloads)
	if !slices.ContainsFunc(catalogue, func(verb aether_plugin_types.Verb) bool { return verb.Name == migrate }) {
		aether_plugin_log.Write(aether_plugin_log.SeverityWarn, "the catalogue has no "+migrate)
		return nothing
	}
	if count == 0 {
		aether_plugin_log.Write(aether_plugin_log.SeverityInfo, "nothing runs on "+from)
		return nothing
	}
	first := slices.IndexFunc(candidates, hasRoom)
	if first < 0 {
		text := fmt.Sprintf("none of %d candidates has room", len(candidates))
		aether_plugin_log.Write(aether_plugin_log.SeverityInfo, text)
		return nothing
	}
	receiver := candidates[first].Node

	noun := "workloads"
	if count == 1 {
		noun = "workload"
	}
	proposal := aether_plugin_types.Proposal{
		Title:      fmt.Sprintf("Migrate %d %s from %s to %s", count, noun, from, receiver.Id),
		Rationale:  finding.Risk.Reason,
		Watch:      export_aether_plugin_plugin.Settings.WatchMs,
		Confidence: finding.Risk.Confidence,
	}
	for _, workload := range finding.Workloads {
		proposal.Steps = append(proposal.Steps, aether_plugin_types.Step{
			Verb:      migrate,
			Target:    target(workload),
			Arguments: []aether_plugin_types.Argument{{Name: "to", Value: aether_plugin_types.MakeValueText(receiver.Id)}},
			Preconditions: []aether_plugin_types.Condition{{
				Metric:      export_aether_plugin_plugin.Metric,
				Target:      target(receiver),
				Maximum:     Some[float64](full),
				FreshWithin: 15_000,
			}},
			OnFailure: aether_plugin_types.OnFailureCompensate,
		})
	}
	return Ok[[]aether_plugin_types.Proposal, string]([]aether_plugin_types.Proposal{proposal})
}

// A candidate of which nothing is known has room: the precondition is checked on fresh evidence anyhow.
func hasRoom(candidate aether_plugin_planning.Candidate) bool {
	used := math.NaN()
	for _, observation := range candidate.Free {
		for _, column := range observation.Columns {
			if column.Input != export_aether_plugin_plugin.Memory {
				continue
			}
			for _, value := range column.Values {
				if !math.IsNaN(value) { // a gap
					used = value
				}
			}
		}
	}
	return !(used > full)
}

// A target is a subject of the generation that was given: one that was replaced since is refused.
func target(subject aether_plugin_types.Subject) aether_plugin_types.Target {
	return aether_plugin_types.Target{Kind: subject.Kind, Id: subject.Id, Generation: subject.Generation}
}
