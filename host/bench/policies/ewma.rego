# The scorer of logic/src/ewma.rs. Rego cannot fold, so mean and variance are written as weighted sums, which are the
# same numbers: `data.weights[i]` is what the recursion gives the i-th sample, computed once by who loads the policy.
package bench.ewma

import rego.v1

values := input.columns[0].values

newest := values[count(values) - 1]

mean := sum([part |
	some i, weight in data.weights
	part := weight * values[i]
])

variance := sum([part |
	some i, weight in data.weights
	part := (weight * (values[i] - mean)) * (values[i] - mean)
])

squared := ((newest - mean) * (newest - mean)) / variance if {
	variance > 0
} else := 0

level := "critical" if {
	squared >= data.rules.critical * data.rules.critical
} else := "high" if {
	squared >= data.rules.high * data.rules.high
} else := "elevated" if {
	squared >= data.rules.elevated * data.rules.elevated
} else := "low"

risk := {
	"level": level,
	"score": squared / (squared + (data.rules.critical * data.rules.critical)),
	"mean": mean,
	"variance": variance,
	"reason": sprintf("%v is at %v squared deviations from %v", [newest, squared, mean]),
}
