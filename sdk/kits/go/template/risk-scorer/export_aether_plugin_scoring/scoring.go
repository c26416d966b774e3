// {{name}}: how likely is this node to fail? A GPU error that the driver reported, then memory that runs full.
package export_aether_plugin_scoring

import (
	"fmt"
	"math"

	"component/bindings/aether_plugin_scoring"
	"component/bindings/aether_plugin_types"
	"component/export_aether_plugin_plugin"

	. "go.bytecodealliance.org/pkg/wit/types"
)

const (
	leastSamples = 3
	near         = 0.1 // this much below the threshold is elevated
)

func Score(question aether_plugin_types.Observation) Result[aether_plugin_scoring.Assessment, string] {
	return Ok[aether_plugin_scoring.Assessment, string](assess(question))
}

func assess(question aether_plugin_types.Observation) aether_plugin_scoring.Assessment {
	for i := len(question.Events) - 1; i >= 0; i-- { // the newest is the last
		event := question.Events[i]
		if event.Input != export_aether_plugin_plugin.Xid {
			continue
		}
		xid := "unknown"
		for _, attribute := range event.Attributes {
			if attribute.Key == "xid" {
				xid = attribute.Value
			}
		}
		note := fmt.Sprintf("the driver of %s reported Xid %s", question.Subject.Id, xid)
		return risk(export_aether_plugin_plugin.Xid, note, aether_plugin_types.Risk{
			Level:      aether_plugin_types.LevelCritical,
			Score:      0.95,
			Confidence: 0.9,
			Cause:      "gpu.xid." + xid,
		})
	}

	var grid []float64
	for _, column := range question.Columns {
		if column.Input == export_aether_plugin_plugin.Memory {
			grid = column.Values
			break
		}
	}
	var values []float64
	for _, value := range grid {
		if !math.IsNaN(value) { // a gap
			values = append(values, value)
		}
	}
	if len(values) < leastSamples {
		text := fmt.Sprintf("%d samples of memory use, of at least %d", len(values), leastSamples)
		return aether_plugin_scoring.MakeAssessmentInsufficient(text)
	}
	used := values[len(values)-1]
	answer := aether_plugin_types.Risk{Score: used, Confidence: float64(len(values)) / float64(len(grid))}
	switch threshold := export_aether_plugin_plugin.Settings.Threshold; {
	case used >= threshold:
		answer.Level, answer.Cause = aether_plugin_types.LevelCritical, "memory.full"
		answer.Horizon = Some[uint64](60_000)
	case used >= threshold-near:
		answer.Level, answer.Cause = aether_plugin_types.LevelElevated, "memory.near-full"
	default:
		answer.Level, answer.Cause = aether_plugin_types.LevelLow, "memory.calm"
	}
	return risk(export_aether_plugin_plugin.Memory, fmt.Sprintf("memory is %.0f %% full", used*100), answer)
}

func risk(input uint32, note string, answer aether_plugin_types.Risk) aether_plugin_scoring.Assessment {
	answer.Reason = note
	answer.Contributions = []aether_plugin_types.Contribution{{Input: input, Weight: 1, Note: note}}
	return aether_plugin_scoring.MakeAssessmentRisk(answer)
}
