/* A stand-in for libnvidia-ml.so.1, for tests: the functions that the agent calls, on GPUs whose state is a file of
 * `name value` lines (AETHER_FAKE_NVML; unset: this library's path with `.state` behind). Every call reads it and every
 * set writes it, so that a test can look and meddle. `fail` names the error that every set gives: permission,
 * unsupported, lost (then every call gives it); or hang (then every call waits until it says otherwise).
 * `gpus`: how many there are, 1 if unset. `mig`: instances of the first. `xid`: an error that is told once. While a
 * process has it open the file `<state>.open.<pid>` is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, UNSUPPORTED = 3, PERMISSION = 4, NOT_FOUND = 6, SMALL = 7, TIMEOUT = 10, LOST = 15, UNKNOWN = 999 };
#define UUID "GPU-00000000-aaaa-bbbb-cccc-00000000000%u"
#define MIG_UUID "MIG-00000000-aaaa-bbbb-cccc-00000000000%u"
#define MIG 0x1000
#define FIELDS 64

struct field { char name[32]; char value[64]; };

static const char *state(void) {
    static char beside[4096];
    const char *path = getenv("AETHER_FAKE_NVML");
    Dl_info self;
    if (path) return path;
    if (!beside[0] && dladdr((void *)state, &self)) snprintf(beside, sizeof beside, "%s.state", self.dli_fname);
    return beside;
}

static int load(struct field *all) {
    FILE *file = fopen(state(), "r");
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

static unsigned long long large(const char *name) {
    char value[64];
    return text(name, value) ? strtoull(value, NULL, 10) : 0;
}
static unsigned number(const char *name) { return (unsigned)large(name); }

/* What every call about a device does first. */
static int gate(void) {
    char value[64];
    while (text("fail", value) && !strcmp(value, "hang")) usleep(10000);
    return !strcmp(value, "lost") ? LOST : SUCCESS;
}

static int put(const char *name, unsigned value) {
    struct field all[FIELDS];
    char beside[4096];
    int count = load(all);
    if (count < 0) return UNKNOWN;
    snprintf(beside, sizeof beside, "%s.new", state());
    FILE *file = fopen(beside, "w");
    if (!file) return UNKNOWN;
    int found = 0;
    for (int i = 0; i < count; i++) {
        if (!strcmp(all[i].name, name)) { fprintf(file, "%s %u\n", name, value); found = 1; }
        else fprintf(file, "%s %s\n", all[i].name, all[i].value);
    }
    if (!found) fprintf(file, "%s %u\n", name, value);
    fclose(file);
    return rename(beside, state()) ? UNKNOWN : SUCCESS;
}

static int set(const char *name, unsigned value) {
    char why[64];
    if (text("fail", why)) {
        if (!strcmp(why, "permission")) return PERMISSION;
        if (!strcmp(why, "unsupported")) return UNSUPPORTED;
        if (!strcmp(why, "lost")) return LOST;
        if (!strcmp(why, "forgets")) return SUCCESS;
    }
    return put(name, value);
}

static int opened;
static void mark(char *out, size_t size) { snprintf(out, size, "%s.open.%d", state(), (int)getpid()); }

int nvmlInit_v2(void) {
    struct field all[FIELDS];
    char path[4200];
    if (load(all) < 0) return 9;
    if (__sync_fetch_and_add(&opened, 1) == 0) {
        mark(path, sizeof path);
        FILE *file = fopen(path, "w");
        if (file) fclose(file);
    }
    return SUCCESS;
}
int nvmlShutdown(void) {
    char path[4200];
    mark(path, sizeof path);
    if (__sync_sub_and_fetch(&opened, 1) == 0) unlink(path);
    return SUCCESS;
}
int nvmlSystemGetDriverVersion(char *out, unsigned length) { snprintf(out, length, "580.00.00"); return SUCCESS; }

/* A handle is the number of the GPU, from 1; of a MIG instance, MIG and its number. */
static unsigned gpus(void) { unsigned count = number("gpus"); return count ? count : 1; }
static unsigned of(void *device) { return (unsigned)(unsigned long)device; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpus(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= gpus()) return INVALID;
    *device = (void *)(unsigned long)(index + 1);
    return gate();
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    for (unsigned index = 1; index <= gpus(); index++) {
        char own[64];
        snprintf(own, sizeof own, UUID, index);
        if (!strcmp(uuid, own)) { *device = (void *)(unsigned long)index; return gate(); }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *device, char *out, unsigned length) {
    if (of(device) >= MIG) snprintf(out, length, MIG_UUID, of(device) - MIG + 1);
    else snprintf(out, length, UUID, of(device));
    return SUCCESS;
}
int nvmlDeviceGetName(void *device, char *out, unsigned length) { (void)device; snprintf(out, length, "Fake GPU"); return SUCCESS; }

int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *limit) {
    (void)device; *limit = number("power_limit"); return gate();
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *limit) { return nvmlDeviceGetPowerManagementLimit(device, limit); }
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high) {
    (void)device; *low = 100000; *high = 350000; return gate();
}
int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit) {
    (void)device; return limit < 100000 || limit > 350000 ? INVALID : set("power_limit", limit);
}
int nvmlDeviceGetComputeMode(void *device, int *mode) { (void)device; *mode = (int)number("compute_mode"); return gate(); }
int nvmlDeviceSetComputeMode(void *device, int mode) { (void)device; return set("compute_mode", (unsigned)mode); }

int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *mhz) { (void)device; (void)type; *mhz = 1980; return gate(); }
int nvmlDeviceGetClockInfo(void *device, int type, unsigned *mhz) {
    (void)device; (void)type;
    unsigned high = number("locked_high");
    *mhz = high && high < 1500 ? high : 1500;
    return gate();
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

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { (void)device; *milliwatts = number("power"); return gate(); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    (void)device; (void)sensor; *celsius = number("temperature"); return gate();
}
struct busy { unsigned gpu; unsigned memory; };
int nvmlDeviceGetUtilizationRates(void *device, struct busy *out) {
    /* MIG: NVML tells nothing of it, neither of the instances nor of the whole. */
    if (of(device) >= MIG || (of(device) == 1 && number("mig"))) return UNSUPPORTED;
    out->gpu = number("busy"); out->memory = number("memory_busy"); return gate();
}
struct memory { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *out) {
    unsigned long long total = 80ull << 30;
    out->total = of(device) >= MIG ? total / 8 : total;
    out->used = large("memory_used") / (of(device) >= MIG ? 8 : 1);
    out->reserved = 0; out->free = out->total - out->used;
    return gate();
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    (void)device; *reasons = large("throttle"); return gate();
}
int nvmlDeviceGetTotalEccErrors(void *device, int error, int counter, unsigned long long *count) {
    (void)device; (void)counter; *count = large(error ? "ecc_uncorrected" : "ecc_corrected"); return gate();
}
int nvmlDeviceGetNvLinkState(void *device, unsigned link, int *up) {
    (void)device;
    if (link >= number("links")) return INVALID;
    *up = link < number("links_up"); return gate();
}
int nvmlDeviceGetNvLinkErrorCounter(void *device, unsigned link, int counter, unsigned long long *count) {
    (void)device; (void)link; *count = counter == 0 ? large("link_errors") : 0; return gate();
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *later) {
    *now = *later = of(device) == 1 && number("mig") > 0; return gate();
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = of(device) == 1 ? 7 : 0; return gate(); }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    if (of(device) != 1 || index >= number("mig")) return NOT_FOUND;
    *instance = (void *)(unsigned long)(MIG + index); return gate();
}

/* An Xid error, told once, of the first GPU. */
#define XID_CRITICAL 8ull
struct event { void *device; unsigned long long type, data; unsigned gpu, compute; };
int nvmlDeviceGetSupportedEventTypes(void *device, unsigned long long *types) { (void)device; *types = XID_CRITICAL; return gate(); }
int nvmlEventSetCreate(void **out) { *out = malloc(1); return *out ? SUCCESS : UNKNOWN; }
int nvmlEventSetFree(void *events) { free(events); return SUCCESS; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *events) { (void)device; (void)types; (void)events; return gate(); }
int nvmlEventSetWait_v2(void *events, struct event *out, unsigned timeout) {
    (void)events; (void)timeout;
    unsigned xid = number("xid");
    if (!xid) return TIMEOUT;
    *out = (struct event){ (void *)1, XID_CRITICAL, xid, ~0u, ~0u };
    return put("xid", 0);
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu; unsigned compute; };
/* They have the pids from `first_pid` on. */
static int processes(const char *name, unsigned *count, struct process *out) {
    unsigned all = number(name), first = number("first_pid");
    if (*count < all) { *count = all; return SMALL; }
    for (unsigned i = 0; i < all; i++) out[i] = (struct process){ (first ? first : 4711) + i, 1 << 20, ~0u, ~0u };
    *count = all;
    return gate();
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *out) {
    (void)device; return processes("compute_processes", count, out);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *out) {
    (void)device; return processes("graphics_processes", count, out);
}
