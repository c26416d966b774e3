// Uses what the virtual WASI has: the clock, randomness, a file, and standard output.
package export_aether_plugin_scoring

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"component/bindings/aether_plugin_scoring"
	"component/bindings/aether_plugin_types"

	. "go.bytecodealliance.org/pkg/wit/types"
)

func Score(aether_plugin_types.Observation) Result[aether_plugin_scoring.Assessment, string] {
	fmt.Println("printed")
	first, second := make([]byte, 16), make([]byte, 16)
	rand.Read(first)
	rand.Read(second)
	drawn := "drawn"
	if bytes.Equal(first, second) {
		drawn = "the same"
	}
	greeting, err := os.ReadFile("/assets/greeting.txt")
	if err != nil {
		return Err[aether_plugin_scoring.Assessment](err.Error())
	}
	text := fmt.Sprintf("%d %s %s", time.Now().UnixMilli(), drawn, greeting)
	return Ok[aether_plugin_scoring.Assessment, string](aether_plugin_scoring.MakeAssessmentInsufficient(text))
}
