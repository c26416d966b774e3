/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the programs share: histograms, counters, the head of a record, and which cgroup a task is of.
 *
 * The layouts are those of `agent/src/collect/bpf/{histogram,record}.rs`. */
#ifndef AETHER_H
#define AETHER_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define INLINE static __attribute__((always_inline, unused))

/* Which hierarchy cgroups are of: version 2, or a controller of version 1 where those still hold the limits. */
enum { HIERARCHY_TWO = 0, HIERARCHY_CPU = 1, HIERARCHY_MEMORY = 2 };
/* Set before the load; a branch that it rules out is not in the program that runs. */
const volatile u32 hierarchy = HIERARCHY_TWO;

INLINE u64 cgroup_of(struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	void *all = (void *)set->subsys;

	if (hierarchy == HIERARCHY_CPU) {
		u64 at = bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id) * sizeof(void *);
		struct cgroup_subsys_state *state = *(struct cgroup_subsys_state **)(all + at);
		return state->cgroup->kn->id;
	}
	if (hierarchy == HIERARCHY_MEMORY) {
		u64 at = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) * sizeof(void *);
		struct cgroup_subsys_state *state = *(struct cgroup_subsys_state **)(all + at);
		return state->cgroup->kn->id;
	}
	return set->dfl_cgrp->kn->id;
}

/* Histograms: powers of two of nanoseconds. The first bucket is below 1,024 ns, the last is from 2^40 ns (18 minutes) on. */
#define BUCKETS 32
#define FIRST_BITS 10
/* Of one map; an object with few things to tell of says a smaller one. */
#ifndef SLOTS
#define SLOTS 256
#endif
#define PROBES 4

struct histogram {
	/* What it is of, plus one: 0 is a free slot. */
	u64 tag;
	u64 sum_ns;
	u64 buckets[BUCKETS];
};

/* Each processor has slots of its own, so that nothing is ever waited for. */
#define HISTOGRAMS(name)                                                                                               \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, SLOTS);                                                                            \
		__type(key, u32);                                                                                      \
		__type(value, struct histogram);                                                                       \
	} name SEC(".maps")

/* What only ever grows. The first is what found no room, the last the slots that were taken, in any map of the object:
 * while none is, the reader need not look for new ones. */
enum { LOST = 0, TAKEN = 7, COUNTERS = 8 };

/* All in one value: they are read together. */
struct counters {
	u64 each[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters SEC(".maps");

INLINE void count(u32 which)
{
	u32 first = 0;
	struct counters *counter = bpf_map_lookup_elem(&counters, &first);
	if (counter && which < COUNTERS)
		counter->each[which] += 1;
}

INLINE u32 bucket_of(u64 ns)
{
	u64 wide = ns >> FIRST_BITS;
	u32 left, bits = 1;

	if (!wide)
		return 0;
	if (wide >> (BUCKETS - 2))
		return BUCKETS - 1;
	left = (u32)wide;
	if (left >> 16) {
		left >>= 16;
		bits += 16;
	}
	if (left >> 8) {
		left >>= 8;
		bits += 8;
	}
	if (left >> 4) {
		left >>= 4;
		bits += 4;
	}
	if (left >> 2) {
		left >>= 2;
		bits += 2;
	}
	return bits + (left >> 1);
}

/* Adds one duration to the histogram of `key`. A histogram that finds no slot is counted as lost. */
INLINE void record(void *histograms, u64 key, u64 ns)
{
	u64 tag = key + 1;
	/* Fibonacci hashing: keys differ in few bits. */
	u32 first = (u32)(key * 0x9e3779b97f4a7c15ULL >> 40);

#pragma unroll
	for (u32 probe = 0; probe < PROBES; probe++) {
		u32 at = (first + probe) % SLOTS;
		struct histogram *slot = bpf_map_lookup_elem(histograms, &at);
		if (!slot)
			return;
		if (slot->tag != tag) {
			if (slot->tag)
				continue;
			slot->tag = tag;
			count(TAKEN);
		}
		u32 bucket = bucket_of(ns);
		/* It is one of them. The compiler knows, and would leave out what the verifier must see. */
		asm volatile("" : "+r"(bucket));
		slot->buckets[bucket & (BUCKETS - 1)] += 1;
		slot->sum_ns += ns;
		return;
	}
	count(LOST);
}

/* Programs that keep something from one run for another may be taken off between, and put on again: what was noted in
 * another spell is nothing's beginning. The agent counts them. */
#define SPELLS                                                                                                         \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, 1);                                                                                \
		__type(key, u32);                                                                                      \
		__type(value, u32);                                                                                    \
	} spell SEC(".maps");                                                                                          \
	INLINE u32 this_spell(void)                                                                                    \
	{                                                                                                              \
		u32 first = 0, *now = bpf_map_lookup_elem(&spell, &first);                                             \
		return now ? *now : 0;                                                                                 \
	}

/* The head of each record in a ring. A reader knows `version` and `kind`, and that `length` bytes are all of it. */
#define RECORD_VERSION 1
enum { RECORD_EXIT = 1, RECORD_OOM = 2 };

struct head {
	u8 version;
	u8 kind;
	u16 length;
	u32 pid;
	/* By CLOCK_MONOTONIC. */
	u64 at_ns;
};

/* Records are read with the next sample; nobody is woken for one. */
#define RING_BYTES (256 * 1024)
#define RING(name)                                                                                                     \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, RING_BYTES);                                                                       \
	} name SEC(".maps")

char LICENSE[] SEC("license") = "GPL";

#endif
