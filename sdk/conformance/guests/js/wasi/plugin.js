// Uses what the virtual WASI has and QuickJS shows of it: the clock and randomness. Of files and output it shows nothing,
// so the contract's own imports serve.
import assets from "aether:plugin/assets@0.1.0";
import log from "aether:plugin/log@0.1.0";

export const plugin = {
  describe: () => ({
    name: "{{name}}",
    version: "0.1.0",
    summary: "Tells what WASI told.",
    inputs: [],
    configSchema: '{"type": "object"}',
  }),
  configure() {},
};

export const scoring = {
  score() {
    log.write("info", "printed");
    const drawn = Math.random() !== Math.random() ? "drawn" : "the same";
    const greeting = String.fromCharCode(...assets.read("greeting.txt"));
    return { tag: "insufficient", val: `${Date.now()} ${drawn} ${greeting}` };
  },
};
