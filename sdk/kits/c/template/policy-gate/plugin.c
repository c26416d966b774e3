// {{name}}: may this plan run? What cannot be undone or touches too much may not, the rest needs people.
#include "kit.h"

enum { MINUTE_MS = 60000 };

static uint32_t max_nodes = 4;

void exports_plugin_describe(aether_description_t *description) {
  // A gate declares no inputs: its question holds all it needs.
  *description = (aether_description_t){
      .name = kit_format("{{name}}"),
      .version = kit_format("0.1.0"),
      .summary = kit_format("Denies what cannot be undone or touches too many nodes; asks people about the rest."),
      .config_schema = kit_format("{\"type\": \"object\","
                                  " \"properties\": {\"max_nodes\": {\"type\": \"integer\", \"minimum\": 0, \"default\": 4}},"
                                  " \"additionalProperties\": false}")};
}

// The host has checked the config against the schema.
bool exports_plugin_configure(aether_string_t *config, aether_string_t *error) {
  (void)error;
  max_nodes = (uint32_t)kit_number(*config, "max_nodes", max_nodes);
  return true;
}

static void because(exports_gating_judgement_t *answer, const char *code, aether_string_t text) {
  answer->reasons.ptr[answer->reasons.len++] = (aether_reason_t){.code = kit_format("%s", code), .text = text};
}

// Giving back false is a fault of the component, which denies.
bool exports_gating_judge(exports_gating_question_t *question, exports_gating_judgement_t *answer,
                          aether_string_t *error) {
  aether_string_t title = question->proposal.title;
  if (question->proposal.steps.len == 0) {
    *error = kit_format("the proposal has no steps");
    return false;
  }
  *answer = (exports_gating_judgement_t){0};
  answer->reasons.ptr = kit_allocate(question->recent.len + 1, sizeof(aether_reason_t));

  if (question->class_ == AETHER_SAFETY_CLASS_DESTRUCTIVE) {
    answer->verdict.tag = EXPORTS_GATING_VERDICT_DENY;
    because(answer, "gate.destructive", kit_format("\"%.*s\" cannot be undone", TEXT(title)));
    return true;
  }
  if (question->blast.nodes > max_nodes) {
    answer->verdict.tag = EXPORTS_GATING_VERDICT_DENY;
    because(answer, "gate.blast-radius",
            kit_format("%u nodes are touched, of at most %u", (unsigned)question->blast.nodes, (unsigned)max_nodes));
    return true;
  }
  if (question->dry_run || question->class_ == AETHER_SAFETY_CLASS_READ_ONLY) {
    answer->verdict.tag = EXPORTS_GATING_VERDICT_ALLOW;
    because(answer, "gate.harmless", kit_format("nothing is changed"));
    return true;
  }

  // Once more with care after a failure; an outcome that nobody knows counts as one.
  uint32_t approvers = 1;
  for (size_t i = 0; i < question->recent.len; i++) {
    const exports_gating_activity_t *activity = &question->recent.ptr[i];
    if (activity->succeeded.is_some && activity->succeeded.val) continue;
    approvers = 2;
    because(answer, "gate.recent-failure",
            kit_format("%.*s on %.*s did not succeed", TEXT(activity->verb), TEXT(activity->target_id)));
  }
  because(answer, "gate.approval", kit_format("\"%.*s\" changes what runs", TEXT(title)));
  answer->verdict.tag = EXPORTS_GATING_VERDICT_REQUIRE_APPROVAL;
  answer->verdict.val.require_approval = (exports_gating_demand_t){.approvers = approvers,
                                                                   .role = kit_format("approver"),
                                                                   .approve_within = 15 * MINUTE_MS,
                                                                   .execute_within = 5 * MINUTE_MS,
                                                                   .comment = approvers > 1};
  return true;
}
