# The gate of logic/src/gate.rs. `data.rules` holds the limits; the input is the host's question, or as much of it as is
# read here.
package bench.gate

import rego.v1

excess contains {"code": "bench.blast.nodes", "text": text} if {
	input.blast.nodes > data.rules.max_nodes
	text := sprintf("it touches %v nodes, over the limit of %v", [input.blast.nodes, data.rules.max_nodes])
}

excess contains {"code": "bench.blast.gpus", "text": text} if {
	input.blast.gpus > data.rules.max_gpus
	text := sprintf("it touches %v GPUs, over the limit of %v", [input.blast.gpus, data.rules.max_gpus])
}

excess contains {"code": "bench.blast.pool", "text": text} if {
	input.blast.pool_percent > data.rules.max_pool_percent
	text := sprintf(
		"it touches %v %% of a pool, over the limit of %v %%",
		[input.blast.pool_percent, data.rules.max_pool_percent],
	)
}

excess contains {"code": "bench.class.destructive", "text": "nothing destructive runs"} if {
	input.class == "destructive"
}

judgement := {
	"verdict": "allow",
	"reasons": [{"code": "bench.read-only", "text": "the plan changes nothing"}],
} if {
	input.class == "read-only"
} else := {"verdict": "deny", "reasons": [reason | some reason in excess]} if {
	count(excess) > 0
} else := {
	"verdict": {"require_approval": 2},
	"reasons": [{"code": "bench.class.impactful", "text": "it is felt by users: two people must agree"}],
} if {
	input.class == "impactful"
} else := {
	"verdict": {"require_approval": 1},
	"reasons": [{"code": "bench.class.reversible", "text": "it can be undone: one person must agree"}],
}
