// {{name}}: what should be done about a node at risk? Its workloads move to the first candidate with room.
import log from "aether:plugin/log@0.1.0";

const MEMORY = 0; // index of `inputs`
const METRIC = "system.memory.utilization";
const MIGRATE = "process.migrate";
const FULL = 0.95;

let settings = { watch_ms: 10_000 };

export const plugin = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Moves every workload of a node at risk to the first candidate with room.",
    // Of the subject and of each candidate.
    inputs: [
      { tag: "metric", val: { name: METRIC, unit: "1", window: 60_000, step: 5_000, aggregation: "last" } },
    ],
    configSchema: JSON.stringify({
      type: "object",
      properties: { watch_ms: { type: "integer", minimum: 0, maximum: 600_000, default: 10_000 } },
      additionalProperties: false,
    }),
  }),

  // The host has checked the config against the schema.
  configure(config) {
    settings = { ...settings, ...JSON.parse(config) };
  },
};

export const planning = {
  // Candidates come best first. No proposal: nothing can be done, and the log says why.
  plan(finding, _evidence, candidates, catalogue) {
    const { subject, risk, workloads } = finding;
    if (!catalogue.some((verb) => verb.name === MIGRATE)) {
      log.write("warn", `the catalogue has no ${MIGRATE}`);
      return [];
    }
    if (workloads.length === 0) {
      log.write("info", `nothing runs on ${subject.id}`);
      return [];
    }
    const receiver = candidates.find(hasRoom)?.node;
    if (!receiver) {
      log.write("info", `none of ${candidates.length} candidates has room`);
      return [];
    }
    const noun = workloads.length === 1 ? "workload" : "workloads";
    return [
      {
        title: `Migrate ${workloads.length} ${noun} from ${subject.id} to ${receiver.id}`,
        rationale: risk.reason,
        steps: workloads.map((workload) => ({
          verb: MIGRATE,
          target: target(workload),
          arguments: [{ name: "to", value: { tag: "text", val: receiver.id } }],
          preconditions: [
            { metric: METRIC, target: target(receiver), minimum: null, maximum: FULL, freshWithin: 15_000 },
          ],
          onFailure: "compensate",
        })),
        success: [],
        watch: settings.watch_ms,
        confidence: risk.confidence,
      },
    ];
  },
};

// A candidate of which nothing is known has room: the precondition is checked on fresh evidence anyhow.
function hasRoom({ free }) {
  const columns = free.flatMap((observation) => observation.columns).filter((column) => column.input === MEMORY);
  return columns.every(({ values }) => !(values.findLast(Number.isFinite) > FULL));
}

// A target is a subject of the generation that was given: one that was replaced since is refused.
const target = ({ kind, id, generation }) => ({ kind, id, generation });
