/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How long tasks wait for a processor, and how long they are off it, by cgroup.
 *
 * One program at each context switch and nothing at wakeups: when a task became runnable is in the task itself
 * (sched_info.last_queued, what /proc/<pid>/schedstat is made of), and the run queue's clock by which it was written is
 * at hand. So no map holds what waits, and a wait is exactly the one that the kernel itself counts. */
#include "aether.h"

/* Threads whose time off the processor is told: those whose id has none of these bits. */
const volatile u32 off_cpu_skip = 7;
/* Threads whose waits are told, in the same way. */
const volatile u32 wait_skip = 0;

HISTOGRAMS(waits);
HISTOGRAMS(absences);
SPELLS

#define LEFT_SLOTS 8192

/* When a thread left its processor to wait for something. Two threads in one slot drive each other out. */
struct left {
	u64 at;
	u32 pid;
	u32 spell;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LEFT_SLOTS);
	__type(key, u32);
	__type(value, struct left);
} leaves SEC(".maps");

INLINE bool blocks(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state != 0;
	struct task_struct___before_5_14 *old = (void *)task;
	return BPF_CORE_READ(old, state) != 0;
}

INLINE struct left *left_of(u32 pid)
{
	u32 at = (pid / (off_cpu_skip + 1)) % LEFT_SLOTS;
	return bpf_map_lookup_elem(&leaves, &at);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempted, struct task_struct *from, struct task_struct *to)
{
	u32 left_by = from->pid, taken_by = to->pid;

	/* Pid 0 is the idle task. */
	if (left_by && !(left_by & off_cpu_skip) && !preempted && blocks(from)) {
		struct left *left = left_of(left_by);
		if (left) {
			left->at = from->se.cfs_rq->rq->clock;
			left->pid = left_by;
			left->spell = this_spell();
		}
	}
	if (!taken_by || (taken_by & wait_skip && taken_by & off_cpu_skip))
		return 0;

	u64 now = to->se.cfs_rq->rq->clock;
	u64 cgroup = cgroup_of(to);
	u64 queued = to->sched_info.last_queued;

	if (!(taken_by & wait_skip) && queued)
		record(&waits, cgroup, now > queued ? now - queued : 0);
	if (!(taken_by & off_cpu_skip)) {
		struct left *left = left_of(taken_by);
		if (left && left->pid == taken_by) {
			left->pid = 0;
			if (left->spell == this_spell())
				record(&absences, cgroup, now > left->at ? now - left->at : 0);
		}
	}
	return 0;
}
