/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Processes that ended, each with its code. A record for each: far rarer than a switch, and what one ended with is
 * nowhere else once its parent has asked for it. */
#include "aether.h"

RING(records);

enum { OK = 1, FAILED = 2, KILLED = 3 };

#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004

struct exit {
	struct head head;
	u64 cgroup;
	/* Since boot, as the start time of /proc/<pid>/stat. */
	u64 started_ns;
	u32 parent;
	u32 uid;
	/* As wait(2) tells it: signal in the low seven bits, a core dump in the eighth, the code above. */
	u32 status;
	u32 reserved;
	char comm[16];
};

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;

	/* A process has ended when its last thread has. */
	if (signal->live.counter || task->flags & PF_KTHREAD)
		return 0;

	struct task_struct *leader = task->group_leader;
	u32 status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : leader->exit_code;
	count(status & 0x7f ? KILLED : status ? FAILED : OK);

	struct exit *exit = bpf_ringbuf_reserve(&records, sizeof(*exit), 0);
	if (!exit) {
		count(LOST);
		return 0;
	}
	exit->head.version = RECORD_VERSION;
	exit->head.kind = RECORD_EXIT;
	exit->head.length = sizeof(*exit);
	exit->head.pid = task->tgid;
	exit->head.at_ns = bpf_ktime_get_ns();
	exit->cgroup = cgroup_of(task);
	exit->started_ns = leader->start_boottime;
	exit->parent = leader->real_parent->tgid;
	exit->uid = task->cred->uid.val;
	exit->status = status;
	exit->reserved = 0;
	bpf_probe_read_kernel_str(exit->comm, sizeof(exit->comm), leader->comm);
	bpf_ringbuf_submit(exit, BPF_RB_NO_WAKEUP);
	return 0;
}
