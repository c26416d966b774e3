// What the component is, and its config.
package export_aether_plugin_plugin

import (
	"encoding/json"

	"component/bindings/aether_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// Index of the declared input.
const Memory = 0

var Settings = struct {
	FullAt float64 `json:"full_at"`
}{0.95}

func Describe() aether_plugin_types.Description {
	return aether_plugin_types.Description{
		Name:    "{{name}}",
		Version: "0.1.0",
		Summary: "Ranks nodes by free memory.",
		// Of each node.
		Inputs: []aether_plugin_types.Input{
			aether_plugin_types.MakeInputMetric(aether_plugin_types.MetricInput{
				Name:        "system.memory.utilization",
				Unit:        "1",
				Window:      60_000,
				Step:        5_000,
				Aggregation: aether_plugin_types.AggregationLast,
			}),
		},
		ConfigSchema: `{
			"type": "object",
			"properties": { "full_at": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.95 } },
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
