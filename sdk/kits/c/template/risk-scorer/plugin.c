// {{name}}: how likely is this node to fail? A GPU error that the driver reported, then memory that runs full.
#include "kit.h"

enum { MEMORY, XID }; // indices of the declared inputs
enum { LEAST_SAMPLES = 3 };
static const double NEAR = 0.1; // this much below the threshold is elevated

static double threshold = 0.9;

void exports_plugin_describe(aether_description_t *description) {
  description->name = kit_format("{{name}}");
  description->version = kit_format("0.1.0");
  description->summary = kit_format("Rates GPU errors and memory that runs full.");
  description->inputs.len = 2;
  description->inputs.ptr = kit_allocate(2, sizeof(aether_input_t));
  description->inputs.ptr[MEMORY] = (aether_input_t){
      .tag = AETHER_INPUT_METRIC,
      .val.metric = {.name = kit_format("system.memory.utilization"),
                     .unit = kit_format("1"),
                     .window = 60000,
                     .step = 5000,
                     .aggregation = AETHER_AGGREGATION_MEAN}};
  description->inputs.ptr[XID] =
      (aether_input_t){.tag = AETHER_INPUT_EVENTS,
                       .val.events = {.name = kit_format("aether.gpu.xid"), .window = 60000, .at_most = 16}};
  description->config_schema = kit_format(
      "{\"type\": \"object\","
      " \"properties\": {\"threshold\": {\"type\": \"number\", \"minimum\": 0, \"maximum\": 1, \"default\": 0.9}},"
      " \"additionalProperties\": false}");
}

// The host has checked the config against the schema.
bool exports_plugin_configure(aether_string_t *config, aether_string_t *error) {
  (void)error;
  threshold = kit_number(*config, "threshold", threshold);
  return true;
}

static void give(exports_scoring_assessment_t *answer, uint32_t input, aether_string_t note, aether_risk_t risk) {
  risk.reason = kit_copy(note);
  risk.contributions.len = 1;
  risk.contributions.ptr = kit_allocate(1, sizeof(aether_contribution_t));
  risk.contributions.ptr[0] = (aether_contribution_t){.input = input, .weight = 1.0, .note = note};
  answer->tag = EXPORTS_SCORING_ASSESSMENT_RISK;
  answer->val.risk = risk;
}

bool exports_scoring_score(aether_observation_t *question, exports_scoring_assessment_t *answer,
                           aether_string_t *error) {
  (void)error;
  for (size_t i = question->events.len; i > 0; i--) { // the newest is the last
    const aether_event_t *event = &question->events.ptr[i - 1];
    if (event->input != XID) continue;
    aether_string_t xid = kit_attribute(event->attributes, "xid");
    if (xid.ptr == NULL) xid = kit_format("unknown");
    aether_string_t note =
        kit_format("the driver of %.*s reported Xid %.*s", TEXT(question->subject.id), TEXT(xid));
    give(answer, XID, note,
         (aether_risk_t){.level = AETHER_LEVEL_CRITICAL,
                         .score = 0.95,
                         .confidence = 0.9,
                         .cause = kit_format("gpu.xid.%.*s", TEXT(xid))});
    return true;
  }

  const aether_list_f64_t *grid = kit_values(question->columns, MEMORY);
  size_t samples = kit_count(grid);
  if (samples < LEAST_SAMPLES) {
    answer->tag = EXPORTS_SCORING_ASSESSMENT_INSUFFICIENT;
    answer->val.insufficient = kit_format("%zu samples of memory use, of at least %d", samples, LEAST_SAMPLES);
    return true;
  }
  double used = kit_last(grid);
  aether_risk_t risk = {.score = used, .confidence = (double)samples / (double)grid->len};
  if (used >= threshold) {
    risk.level = AETHER_LEVEL_CRITICAL;
    risk.horizon.is_some = true;
    risk.horizon.val = 60000;
    risk.cause = kit_format("memory.full");
  } else if (used >= threshold - NEAR) {
    risk.level = AETHER_LEVEL_ELEVATED;
    risk.cause = kit_format("memory.near-full");
  } else {
    risk.level = AETHER_LEVEL_LOW;
    risk.cause = kit_format("memory.calm");
  }
  give(answer, MEMORY, kit_format("memory is %.0f %% full", used * 100), risk);
  return true;
}
