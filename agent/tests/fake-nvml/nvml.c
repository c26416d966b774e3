/* A stand-in for libnvidia-ml.so.1, for tests: the functions that the agent calls, on one GPU whose state is a file of
 * `name value` lines (AETHER_FAKE_NVML). Every call reads it and every set writes it, so that a test can look and meddle.
 * `fail` names the error that every set gives: permission, unsupported, lost (then every call gives it). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID = 2, UNSUPPORTED = 3, PERMISSION = 4, NOT_FOUND = 6, SMALL = 7, LOST = 15, UNKNOWN = 999 };
#define UUID "GPU-00000000-aaaa-bbbb-cccc-000000000001"
#define FIELDS 16

struct field { char name[32]; char value[64]; };

static int load(struct field *all) {
    const char *path = getenv("AETHER_FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    int count = 0;
    if (!file) return -1;
    while (count < FIELDS && fscanf(file, "%31s %63s", all[count].name, all[count].value) == 2) count++;
    fclose(file);
    return count;
}

static int text(const char *name, char *out) {
    struct field all[FIELDS];
    int count = load(all);
    for (int i = 0; i < count; i++)
        if (!strcmp(all[i].name, name)) { strcpy(out, all[i].value); return 1; }
    out[0] = 0;
    return 0;
}

static unsigned number(const char *name) {
    char value[64];
    return text(name, value) ? (unsigned)strtoul(value, NULL, 10) : 0;
}

static int lost(void) { char value[64]; return text("fail", value) && !strcmp(value, "lost"); }

static int set(const char *name, unsigned value) {
    struct field all[FIELDS];
    char why[64], beside[4096];
    int count = load(all);
    if (count < 0) return UNKNOWN;
    if (text("fail", why)) {
        if (!strcmp(why, "permission")) return PERMISSION;
        if (!strcmp(why, "unsupported")) return UNSUPPORTED;
        if (!strcmp(why, "lost")) return LOST;
        if (!strcmp(why, "forgets")) return SUCCESS;
    }
    snprintf(beside, sizeof beside, "%s.new", getenv("AETHER_FAKE_NVML"));
    FILE *file = fopen(beside, "w");
    if (!file) return UNKNOWN;
    int found = 0;
    for (int i = 0; i < count; i++) {
        if (!strcmp(all[i].name, name)) { fprintf(file, "%s %u\n", name, value); found = 1; }
        else fprintf(file, "%s %s\n", all[i].name, all[i].value);
    }
    if (!found) fprintf(file, "%s %u\n", name, value);
    fclose(file);
    return rename(beside, getenv("AETHER_FAKE_NVML")) ? UNKNOWN : SUCCESS;
}

int nvmlInit_v2(void) { struct field all[FIELDS]; return load(all) < 0 ? 9 : SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlSystemGetDriverVersion(char *out, unsigned length) { snprintf(out, length, "580.00.00"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index) return INVALID;
    *device = (void *)1;
    return lost() ? LOST : SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (strcmp(uuid, UUID)) return NOT_FOUND;
    *device = (void *)1;
    return lost() ? LOST : SUCCESS;
}
int nvmlDeviceGetUUID(void *device, char *out, unsigned length) { (void)device; snprintf(out, length, UUID); return SUCCESS; }
int nvmlDeviceGetName(void *device, char *out, unsigned length) { (void)device; snprintf(out, length, "Fake GPU"); return SUCCESS; }

int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *limit) {
    (void)device; *limit = number("power_limit"); return lost() ? LOST : SUCCESS;
}
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high) {
    (void)device; *low = 100000; *high = 350000; return lost() ? LOST : SUCCESS;
}
int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit) {
    (void)device; return limit < 100000 || limit > 350000 ? INVALID : set("power_limit", limit);
}
int nvmlDeviceGetComputeMode(void *device, int *mode) { (void)device; *mode = (int)number("compute_mode"); return lost() ? LOST : SUCCESS; }
int nvmlDeviceSetComputeMode(void *device, int mode) { (void)device; return set("compute_mode", (unsigned)mode); }

int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *mhz) { (void)device; (void)type; *mhz = 1980; return lost() ? LOST : SUCCESS; }
int nvmlDeviceGetClockInfo(void *device, int type, unsigned *mhz) {
    (void)device; (void)type;
    unsigned high = number("locked_high");
    *mhz = high && high < 1500 ? high : 1500;
    return lost() ? LOST : SUCCESS;
}
int nvmlDeviceSetGpuLockedClocks(void *device, unsigned low, unsigned high) {
    (void)device;
    int failed = set("locked_low", low);
    return failed ? failed : set("locked_high", high);
}
int nvmlDeviceResetGpuLockedClocks(void *device) {
    (void)device;
    int failed = set("locked_low", 0);
    return failed ? failed : set("locked_high", 0);
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu; unsigned compute; };
static int processes(const char *name, unsigned *count, struct process *out) {
    unsigned all = number(name);
    if (*count < all) { *count = all; return SMALL; }
    for (unsigned i = 0; i < all; i++) out[i] = (struct process){ 4711 + i, 1 << 20, ~0u, ~0u };
    *count = all;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *out) {
    (void)device; return processes("compute_processes", count, out);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *out) {
    (void)device; return processes("graphics_processes", count, out);
}
