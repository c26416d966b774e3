// What the component is, and its config.
package export_aether_plugin_plugin

import (
	"encoding/json"

	"component/bindings/aether_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// Index of the declared input.
const Memory = 0

const Metric = "system.memory.utilization"

var Settings = struct {
	WatchMs uint64 `json:"watch_ms"`
}{10_000}

func Describe() aether_plugin_types.Description {
	return aether_plugin_types.Description{
		Name:    "{{name}}",
		Version: "0.1.0",
		Summary: "Moves every workload of a node at risk to the first candidate with room.",
		// Of the subject and of each candidate.
		Inputs: []aether_plugin_types.Input{
			aether_plugin_types.MakeInputMetric(aether_plugin_types.MetricInput{
				Name:        Metric,
				Unit:        "1",
				Window:      60_000,
				Step:        5_000,
				Aggregation: aether_plugin_types.AggregationLast,
			}),
		},
		ConfigSchema: `{
			"type": "object",
			"properties": { "watch_ms": { "type": "integer", "minimum": 0, "maximum": 600000, "default": 10000 } },
			"additionalProperties": false
		}`,
	}
}

// The host has checked the config against the schema.
func Configure(config string) Result[Unit, string] {
	if err := json.Unmarshal([]byte(config), &Settings); err != nil {
		return Err[Unit](err.Error())
	}
	return Ok[Unit, string](Unit{})
}
