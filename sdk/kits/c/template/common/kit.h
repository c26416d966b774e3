// The kit: what every plugin in C needs and the bindings do not give. Change it as you like.
#ifndef KIT_H
#define KIT_H

#include "bindings/aether.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// For the conversion `%.*s`.
#define TEXT(string) (int)(string).len, (const char *)(string).ptr

// Memory that the caller frees: whatever an answer holds must come from here. Without memory there is no answer.
static inline void *kit_allocate(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) __builtin_trap();
  return memory;
}

// A string for an answer, as printf would print it.
__attribute__((format(printf, 1, 2))) static inline aether_string_t kit_format(const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  if (length < 0) __builtin_trap();
  char *text = kit_allocate((size_t)length + 1, 1);
  vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  va_end(arguments);
  return (aether_string_t){.ptr = (uint8_t *)text, .len = (size_t)length};
}

// A copy for an answer: what belongs to the question is not the answer's to give away.
static inline aether_string_t kit_copy(aether_string_t string) { return kit_format("%.*s", TEXT(string)); }

static inline bool kit_is(aether_string_t string, const char *text) {
  return string.len == strlen(text) && memcmp(string.ptr, text, string.len) == 0;
}

// The value of a key in a list of attributes; its pointer is NULL if there is none.
#define kit_attribute(attributes, key) kit_find((attributes).ptr, (attributes).len, key)
static inline aether_string_t kit_find(const aether_attribute_t *attributes, size_t count, const char *key) {
  for (size_t i = 0; i < count; i++) {
    if (kit_is(attributes[i].key, key)) return attributes[i].value;
  }
  return (aether_string_t){0};
}

// The number of a field of the config, or `otherwise`. Enough for a config of numbers, which the host has checked
// against the schema; for more, add a JSON library.
static inline double kit_number(aether_string_t config, const char *field, double otherwise) {
  aether_string_t json = kit_copy(config), key = kit_format("\"%s\":", field);
  const char *found = strstr((const char *)json.ptr, (const char *)key.ptr);
  double number = found == NULL ? otherwise : strtod(found + key.len, NULL);
  free(json.ptr);
  free(key.ptr);
  return number;
}

// The newest value that was sampled; NaN if none was. Each gap is NaN.
static inline double kit_last(const aether_list_f64_t *values) {
  for (size_t i = values->len; i > 0; i--) {
    if (isfinite(values->ptr[i - 1])) return values->ptr[i - 1];
  }
  return NAN;
}

// How many values were sampled.
static inline size_t kit_count(const aether_list_f64_t *values) {
  size_t count = 0;
  for (size_t i = 0; i < values->len; i++) count += isfinite(values->ptr[i]) ? 1 : 0;
  return count;
}

// The first series of a declared input; none: it was never sampled.
static inline const aether_list_f64_t *kit_values(aether_list_column_t columns, uint32_t input) {
  static const aether_list_f64_t none = {0};
  for (size_t i = 0; i < columns.len; i++) {
    if (columns.ptr[i].input == input) return &columns.ptr[i].values;
  }
  return &none;
}

#endif
