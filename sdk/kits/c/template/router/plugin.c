// {{name}}: where should this work go? To the node with the most free memory.
#include "kit.h"

enum { MEMORY }; // index of the declared input

static double full_at = 0.95;

void exports_plugin_describe(aether_description_t *description) {
  description->name = kit_format("{{name}}");
  description->version = kit_format("0.1.0");
  description->summary = kit_format("Ranks nodes by free memory.");
  // Of each node.
  description->inputs.len = 1;
  description->inputs.ptr = kit_allocate(1, sizeof(aether_input_t));
  description->inputs.ptr[MEMORY] = (aether_input_t){.tag = AETHER_INPUT_METRIC,
                                                     .val.metric = {.name = kit_format("system.memory.utilization"),
                                                                    .unit = kit_format("1"),
                                                                    .window = 60000,
                                                                    .step = 5000,
                                                                    .aggregation = AETHER_AGGREGATION_LAST}};
  description->config_schema = kit_format(
      "{\"type\": \"object\","
      " \"properties\": {\"full_at\": {\"type\": \"number\", \"minimum\": 0, \"maximum\": 1, \"default\": 0.95}},"
      " \"additionalProperties\": false}");
}

// The host has checked the config against the schema.
bool exports_plugin_configure(aether_string_t *config, aether_string_t *error) {
  (void)error;
  full_at = kit_number(*config, "full_at", full_at);
  return true;
}

static void choose(exports_routing_list_choice_t *answer, aether_string_t id, double score, const char *code,
                   aether_string_t text) {
  answer->ptr[answer->len++] = (exports_routing_choice_t){
      .id = kit_copy(id), .score = score, .reason = {.code = kit_format("%s", code), .text = text}};
}

// The best first; equal ones in order of id, so that the answer does not depend on the order of the question.
static int better(const void *left, const void *right) {
  const exports_routing_choice_t *a = left, *b = right;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  int order = memcmp(a->id.ptr, b->id.ptr, a->id.len < b->id.len ? a->id.len : b->id.len);
  return order != 0 ? order : (a->id.len > b->id.len) - (a->id.len < b->id.len);
}

// Choices, best first. What is left out was not chosen.
bool exports_routing_route(exports_routing_question_t *question, exports_routing_list_choice_t *answer,
                           aether_string_t *error) {
  (void)error;
  *answer = (exports_routing_list_choice_t){0};
  if (question->tag == EXPORTS_ROUTING_QUESTION_MESSAGE) {
    aether_string_t to = kit_attribute(question->val.message.attributes, "to");
    if (to.ptr == NULL) return true;
    answer->ptr = kit_allocate(1, sizeof(exports_routing_choice_t));
    choose(answer, to, 1.0, "router.addressed", kit_format("the message names its receiver"));
    return true;
  }

  const exports_routing_placement_t *placement = &question->val.placement;
  if (placement->nodes.len == 0) return true;
  answer->ptr = kit_allocate(placement->nodes.len, sizeof(exports_routing_choice_t));
  for (size_t i = 0; i < placement->nodes.len; i++) {
    const aether_observation_t *node = &placement->nodes.ptr[i];
    double used = kit_last(kit_values(node->columns, MEMORY));
    if (isnan(used)) {
      choose(answer, node->subject.id, 0.0, "router.unknown", kit_format("nothing was sampled within the minute"));
    } else if (used < full_at) {
      choose(answer, node->subject.id, 1.0 - used, "router.memory", kit_format("memory is %.0f %% full", used * 100));
    }
  }
  qsort(answer->ptr, answer->len, sizeof(exports_routing_choice_t), better);
  return true;
}
