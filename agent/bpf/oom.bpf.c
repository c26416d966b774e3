/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Processes that the kernel killed because memory ran out, of the machine or of their cgroup. */
#include "aether.h"

RING(records);

enum { KILLS = 1 };

struct oom {
	struct head head;
	u64 cgroup;
	u64 started_ns;
	u64 total_vm_pages;
	u32 uid;
	s32 score_adj;
	char comm[16];
};

/* Before Linux 6.9 the tracepoint knew the victim's pid alone; there the verifier refuses this program. */
SEC("tp_btf/mark_victim")
int BPF_PROG(mark_victim, struct task_struct *task)
{
	struct oom *oom;

	count(KILLS);
	oom = bpf_ringbuf_reserve(&records, sizeof(*oom), 0);
	if (!oom) {
		count(LOST);
		return 0;
	}
	struct task_struct *leader = task->group_leader;
	oom->head.version = RECORD_VERSION;
	oom->head.kind = RECORD_OOM;
	oom->head.length = sizeof(*oom);
	oom->head.pid = task->tgid;
	oom->head.at_ns = bpf_ktime_get_ns();
	oom->cgroup = cgroup_of(task);
	oom->started_ns = leader->start_boottime;
	oom->total_vm_pages = task->mm->total_vm;
	oom->uid = task->cred->uid.val;
	oom->score_adj = task->signal->oom_score_adj;
	bpf_probe_read_kernel_str(oom->comm, sizeof(oom->comm), leader->comm);
	bpf_ringbuf_submit(oom, BPF_RB_NO_WAKEUP);
	return 0;
}
