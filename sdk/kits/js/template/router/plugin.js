// {{name}}: where should this work go? To the node with the most free memory.

const MEMORY = 0; // index of `inputs`

let settings = { full_at: 0.95 };

export const plugin = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Ranks nodes by free memory.",
    // Of each node.
    inputs: [
      {
        tag: "metric",
        val: { name: "system.memory.utilization", unit: "1", window: 60_000, step: 5_000, aggregation: "last" },
      },
    ],
    configSchema: JSON.stringify({
      type: "object",
      properties: { full_at: { type: "number", minimum: 0, maximum: 1, default: 0.95 } },
      additionalProperties: false,
    }),
  }),

  // The host has checked the config against the schema.
  configure(config) {
    settings = { ...settings, ...JSON.parse(config) };
  },
};

export const routing = {
  // Choices, best first. What is left out was not chosen.
  route(question) {
    if (question.tag === "message") {
      const to = question.val.attributes.find(({ key }) => key === "to")?.value;
      return to === undefined ? [] : [choice(to, 1, "router.addressed", "the message names its receiver")];
    }
    return question.val.nodes
      .map(rank)
      .filter((ranked) => ranked !== null)
      // Equal ones in order of id, so that the answer does not depend on the order of the question.
      .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1));
  },
};

function rank({ subject, columns }) {
  // NaN means that nothing was sampled.
  const used = columns.find((column) => column.input === MEMORY)?.values.findLast(Number.isFinite);
  if (used === undefined) return choice(subject.id, 0, "router.unknown", "nothing was sampled within the minute");
  if (used >= settings.full_at) return null;
  return choice(subject.id, 1 - used, "router.memory", `memory is ${Math.floor(used * 100 + 0.5)} % full`);
}

const choice = (id, score, code, text) => ({ id, score, reason: { code, text } });
