// {{name}}: may this plan run? What cannot be undone or touches too much may not, the rest needs people.

let settings = { max_nodes: 4 };

export const plugin = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Denies what cannot be undone or touches too many nodes; asks people about the rest.",
    inputs: [], // a gate reads no telemetry: its question holds all it needs
    configSchema: JSON.stringify({
      type: "object",
      properties: { max_nodes: { type: "integer", minimum: 0, default: 4 } },
      additionalProperties: false,
    }),
  }),

  // The host has checked the config against the schema.
  configure(config) {
    settings = { ...settings, ...JSON.parse(config) };
  },
};

export const gating = {
  judge({ proposal, class: gravest, blast, recent, dryRun }) {
    // What is thrown is a fault of the component, which denies.
    if (proposal.steps.length === 0) throw "the proposal has no steps";

    if (gravest === "destructive") {
      return judgement("deny", [reason("gate.destructive", `"${proposal.title}" cannot be undone`)]);
    }
    if (blast.nodes > settings.max_nodes) {
      const text = `${blast.nodes} nodes are touched, of at most ${settings.max_nodes}`;
      return judgement("deny", [reason("gate.blast-radius", text)]);
    }
    if (dryRun || gravest === "read-only") {
      return judgement("allow", [reason("gate.harmless", "nothing is changed")]);
    }

    // Once more with care after a failure; an outcome that nobody knows counts as one.
    const failed = recent.filter(({ succeeded }) => succeeded !== true);
    const reasons = failed.map(({ verb, targetId }) =>
      reason("gate.recent-failure", `${verb} on ${targetId} did not succeed`),
    );
    const approvers = failed.length === 0 ? 1 : 2;
    reasons.push(reason("gate.approval", `"${proposal.title}" changes what runs`));
    return judgement("require-approval", reasons, {
      approvers,
      role: "approver",
      approveWithin: 15 * 60_000,
      executeWithin: 5 * 60_000,
      comment: approvers > 1,
    });
  },
};

const reason = (code, text) => ({ code, text });
const judgement = (tag, reasons, val) => ({ verdict: { tag, val }, reasons });
