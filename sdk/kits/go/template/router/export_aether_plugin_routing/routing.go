// {{name}}: where should this work go? To the node with the most free memory.
package export_aether_plugin_routing

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"component/bindings/aether_plugin_routing"
	"component/bindings/aether_plugin_types"
	"component/export_aether_plugin_plugin"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// Choices, best first. What is left out was not chosen.
func Route(question aether_plugin_routing.Question) Result[[]aether_plugin_routing.Choice, string] {
	var choices []aether_plugin_routing.Choice
	if question.Tag() == aether_plugin_routing.QuestionMessage {
		for _, attribute := range question.Message().Attributes {
			if attribute.Key == "to" {
				choices = append(choices, choice(attribute.Value, 1, "router.addressed", "the message names its receiver"))
			}
		}
		return Ok[[]aether_plugin_routing.Choice, string](choices)
	}

	for _, node := range question.Placement().Nodes {
		id, used := node.Subject.Id, memory(node)
		switch {
		case math.IsNaN(used):
			choices = append(choices, choice(id, 0, "router.unknown", "nothing was sampled within the minute"))
		case used < export_aether_plugin_plugin.Settings.FullAt:
			text := fmt.Sprintf("memory is %.0f %% full", used*100)
			choices = append(choices, choice(id, 1-used, "router.memory", text))
		}
	}
	// Equal ones in order of id, so that the answer does not depend on the order of the question.
	slices.SortFunc(choices, func(a, b aether_plugin_routing.Choice) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Id, b.Id))
	})
	return Ok[[]aether_plugin_routing.Choice, string](choices)
}

// The newest sample; NaN if there is none, as each gap is.
func memory(node aether_plugin_types.Observation) float64 {
	used := math.NaN()
	for _, column := range node.Columns {
		if column.Input != export_aether_plugin_plugin.Memory {
			continue
		}
		for _, value := range column.Values {
			if !math.IsNaN(value) {
				used = value
			}
		}
	}
	return used
}

func choice(id string, score float64, code, text string) aether_plugin_routing.Choice {
	return aether_plugin_routing.Choice{Id: id, Score: score, Reason: aether_plugin_types.Reason{Code: code, Text: text}}
}
