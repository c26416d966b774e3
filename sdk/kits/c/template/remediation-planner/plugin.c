// {{name}}: what should be done about a node at risk? Its workloads move to the first candidate with room.
#include "kit.h"

enum { MEMORY }; // index of the declared input
#define METRIC "system.memory.utilization"
#define MIGRATE "process.migrate"
static const double FULL = 0.95;

static uint64_t watch_ms = 10000;

void exports_plugin_describe(aether_description_t *description) {
  description->name = kit_format("{{name}}");
  description->version = kit_format("0.1.0");
  description->summary = kit_format("Moves every workload of a node at risk to the first candidate with room.");
  // Of the subject and of each candidate.
  description->inputs.len = 1;
  description->inputs.ptr = kit_allocate(1, sizeof(aether_input_t));
  description->inputs.ptr[MEMORY] = (aether_input_t){.tag = AETHER_INPUT_METRIC,
                                                     .val.metric = {.name = kit_format(METRIC),
                                                                    .unit = kit_format("1"),
                                                                    .window = 60000,
                                                                    .step = 5000,
                                                                    .aggregation = AETHER_AGGREGATION_LAST}};
  description->config_schema = kit_format(
      "{\"type\": \"object\","
      " \"properties\": {\"watch_ms\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 600000, \"default\": 10000}},"
      " \"additionalProperties\": false}");
}

// The host has checked the config against the schema.
bool exports_plugin_configure(aether_string_t *config, aether_string_t *error) {
  (void)error;
  watch_ms = (uint64_t)kit_number(*config, "watch_ms", (double)watch_ms);
  return true;
}

static void tell(aether_log_severity_t severity, aether_string_t line) { aether_log_write(severity, &line); }

// A candidate of which nothing is known has room: the precondition is checked on fresh evidence anyhow.
static bool has_room(const exports_planning_candidate_t *candidate) {
  for (size_t i = 0; i < candidate->free.len; i++) {
    if (kit_last(kit_values(candidate->free.ptr[i].columns, MEMORY)) > FULL) return false;
  }
  return true;
}

// A target is a subject of the generation that was given: one that was replaced since is refused.
static aether_target_t target(const aether_subject_t *subject) {
  return (aether_target_t){.kind = subject->kind, .id = kit_copy(subject->id), .generation = subject->generation};
}

static aether_step_t migrate(const aether_subject_t *workload, const aether_subject_t *receiver) {
  aether_step_t step = {
      .verb = kit_format(MIGRATE), .target = target(workload), .on_failure = AETHER_ON_FAILURE_COMPENSATE};
  step.arguments.len = 1;
  step.arguments.ptr = kit_allocate(1, sizeof(aether_argument_t));
  step.arguments.ptr[0] = (aether_argument_t){
      .name = kit_format("to"), .value = {.tag = AETHER_VALUE_TEXT, .val.text = kit_copy(receiver->id)}};
  step.preconditions.len = 1;
  step.preconditions.ptr = kit_allocate(1, sizeof(aether_condition_t));
  step.preconditions.ptr[0] = (aether_condition_t){.metric = kit_format(METRIC),
                                                   .target = target(receiver),
                                                   .maximum = {.is_some = true, .val = FULL},
                                                   .fresh_within = 15000};
  return step;
}

// Candidates come best first. No proposal: nothing can be done, and the log says why.
bool exports_planning_plan(exports_planning_finding_t *finding, aether_observation_t *evidence,
                           exports_planning_list_candidate_t *candidates, exports_planning_list_verb_t *catalogue,
                           exports_planning_list_proposal_t *answer, aether_string_t *error) {
  (void)evidence, (void)error;
  *answer = (exports_planning_list_proposal_t){0};
  size_t count = finding->workloads.len;
  bool known = false;
  for (size_t i = 0; i < catalogue->len; i++) known = known || kit_is(catalogue->ptr[i].name, MIGRATE);
  if (!known) {
    tell(AETHER_LOG_SEVERITY_WARN, kit_format("the catalogue has no " MIGRATE));
    return true;
  }
  if (count == 0) {
    tell(AETHER_LOG_SEVERITY_INFO, kit_format("nothing runs on %.*s", TEXT(finding->subject.id)));
    return true;
  }
  size_t first = 0;
  while (first < candidates->len && !has_room(&candidates->ptr[first])) first++;
  if (first == candidates->len) {
    tell(AETHER_LOG_SEVERITY_INFO, kit_format("none of %zu candidates has room", candidates->len));
    return true;
  }
  const aether_subject_t *receiver = &candidates->ptr[first].node;

  aether_proposal_t proposal = {
      .title = kit_format("Migrate %zu workload%s from %.*s to %.*s", count, count == 1 ? "" : "s",
                          TEXT(finding->subject.id), TEXT(receiver->id)),
      .rationale = kit_copy(finding->risk.reason),
      .watch = watch_ms,
      .confidence = finding->risk.confidence};
  proposal.steps.len = count;
  proposal.steps.ptr = kit_allocate(count, sizeof(aether_step_t));
  for (size_t i = 0; i < count; i++) proposal.steps.ptr[i] = migrate(&finding->workloads.ptr[i], receiver);
  answer->len = 1;
  answer->ptr = kit_allocate(1, sizeof(aether_proposal_t));
  answer->ptr[0] = proposal;
  return true;
}
