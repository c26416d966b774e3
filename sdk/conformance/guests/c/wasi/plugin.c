// Uses what the virtual WASI has: the clock, randomness, a file, and standard output.
#include "kit.h"
#include <sys/random.h>
#include <time.h>

void exports_plugin_describe(aether_description_t *description) {
  *description = (aether_description_t){.name = kit_format("{{name}}"),
                                        .version = kit_format("0.1.0"),
                                        .summary = kit_format("Tells what WASI told."),
                                        .config_schema = kit_format("{\"type\": \"object\"}")};
}

bool exports_plugin_configure(aether_string_t *config, aether_string_t *error) {
  (void)config, (void)error;
  return true;
}

bool exports_scoring_score(aether_observation_t *question, exports_scoring_assessment_t *answer,
                           aether_string_t *error) {
  (void)question;
  puts("printed");
  fflush(stdout);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  unsigned char first[16] = {0}, second[16] = {0};
  getentropy(first, sizeof first);
  getentropy(second, sizeof second);
  const char *drawn = memcmp(first, second, sizeof first) != 0 ? "drawn" : "the same";
  char greeting[16] = {0};
  FILE *file = fopen("/assets/greeting.txt", "r");
  if (file == NULL) {
    *error = kit_format("there is no greeting");
    return false;
  }
  fread(greeting, 1, sizeof greeting - 1, file);
  fclose(file);
  answer->tag = EXPORTS_SCORING_ASSESSMENT_INSUFFICIENT;
  answer->val.insufficient =
      kit_format("%lld %s %s", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, drawn, greeting);
  return true;
}
