// What the component is, and its config.
package export_aether_plugin_plugin

import (
	"encoding/json"

	"component/bindings/aether_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

var Settings = struct {
	MaxNodes uint32 `json:"max_nodes"`
}{4}

func Describe() aether_plugin_types.Description {
	return aether_plugin_types.Description{
		Name:    "{{name}}",
		Version: "0.1.0",
		Summary: "Denies what cannot be undone or touches too many nodes; asks people about the rest.",
		// A gate declares no inputs: its question holds all it needs.
		ConfigSchema: `{
			"type": "object",
			"properties": { "max_nodes": { "type": "integer", "minimum": 0, "default": 4 } },
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
