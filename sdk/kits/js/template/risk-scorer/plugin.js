// {{name}}: how likely is this node to fail? A GPU error that the driver reported, then memory that runs full.

const MEMORY = 0; // indices of `inputs`
const XID = 1;

const LEAST_SAMPLES = 3;
const NEAR = 0.1; // this much below the threshold is elevated

let settings = { threshold: 0.9 };

const percent = (share) => Math.floor(share * 100 + 0.5);

// One number between the brackets for each sample; NaN where nothing was sampled.
const sampled = (values) => values.filter(Number.isFinite);

export const plugin = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Rates GPU errors and memory that runs full.",
    inputs: [
      {
        tag: "metric",
        val: { name: "system.memory.utilization", unit: "1", window: 60_000, step: 5_000, aggregation: "mean" },
      },
      { tag: "events", val: { name: "aether.gpu.xid", window: 60_000, atMost: 16 } },
    ],
    configSchema: JSON.stringify({
      type: "object",
      properties: { threshold: { type: "number", minimum: 0, maximum: 1, default: 0.9 } },
      additionalProperties: false,
    }),
  }),

  // The host has checked the config against the schema.
  configure(config) {
    settings = { ...settings, ...JSON.parse(config) };
  },
};

export const scoring = {
  score({ subject, columns, events }) {
    const error = events.findLast((event) => event.input === XID);
    if (error) {
      const xid = error.attributes.find(({ key }) => key === "xid")?.value ?? "unknown";
      return risk("critical", 0.95, 0.9, null, `gpu.xid.${xid}`, {
        input: XID,
        note: `the driver of ${subject.id} reported Xid ${xid}`,
      });
    }

    const all = columns.find((column) => column.input === MEMORY)?.values ?? [];
    const values = sampled(all);
    if (values.length < LEAST_SAMPLES) {
      return { tag: "insufficient", val: `${values.length} samples of memory use, of at least ${LEAST_SAMPLES}` };
    }
    const used = values.at(-1);
    const confidence = values.length / all.length;
    const note = { input: MEMORY, note: `memory is ${percent(used)} % full` };
    if (used >= settings.threshold) return risk("critical", used, confidence, 60_000, "memory.full", note);
    if (used >= settings.threshold - NEAR) return risk("elevated", used, confidence, null, "memory.near-full", note);
    return risk("low", used, confidence, null, "memory.calm", note);
  },
};

function risk(level, score, confidence, horizon, cause, { input, note }) {
  const contributions = [{ input, weight: 1, note }];
  return { tag: "risk", val: { level, score, confidence, horizon, cause, reason: note, contributions } };
}
