// What the component is, and its config.
package export_aether_plugin_plugin

import (
	"encoding/json"

	"component/bindings/aether_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// Indices of the declared inputs.
const (
	Memory = iota
	Xid
)

var Settings = struct {
	Threshold float64 `json:"threshold"`
}{0.9}

func Describe() aether_plugin_types.Description {
	return aether_plugin_types.Description{
		Name:    "{{name}}",
		Version: "0.1.0",
		Summary: "Rates GPU errors and memory that runs full.",
		Inputs: []aether_plugin_types.Input{
			aether_plugin_types.MakeInputMetric(aether_plugin_types.MetricInput{
				Name:        "system.memory.utilization",
				Unit:        "1",
				Window:      60_000,
				Step:        5_000,
				Aggregation: aether_plugin_types.AggregationMean,
			}),
			aether_plugin_types.MakeInputEvents(aether_plugin_types.EventInput{
				Name:   "aether.gpu.xid",
				Window: 60_000,
				AtMost: 16,
			}),
		},
		ConfigSchema: `{
			"type": "object",
			"properties": { "threshold": { "type": "number", "minimum": 0, "maximum": 1, "default": 0.9 } },
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
