/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How long connections of this machine to others take to be made, by the cgroup that asked, and what was sent anew. */
#include "aether.h"

HISTOGRAMS(connects);

enum { RETRANSMITS = 1, FAILED = 2 };

/* Of net/tcp_states.h. */
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_CLOSE = 7 };
#define IPPROTO_TCP 6

struct attempt {
	u64 since;
	u64 cgroup;
};

/* What is under way. The oldest gives way, so a connection that nobody ever finished costs nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, const struct sock *socket, const int from, const int to)
{
	u64 key = (u64)socket;

	if (to == TCP_SYN_SENT) {
		if (socket->sk_protocol != IPPROTO_TCP)
			return 0;
		/* In connect(2), so the current task is the one that asked. */
		struct attempt attempt = { .since = bpf_ktime_get_ns(), .cgroup = cgroup_of(bpf_get_current_task_btf()) };
		bpf_map_update_elem(&attempts, &key, &attempt, BPF_ANY);
		return 0;
	}
	if (from != TCP_SYN_SENT)
		return 0;

	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &key);
	if (!attempt)
		return 0;
	u64 cgroup = attempt->cgroup, since = attempt->since;
	bpf_map_delete_elem(&attempts, &key);
	if (to == TCP_ESTABLISHED)
		record(&connects, cgroup, bpf_ktime_get_ns() - since);
	else if (to == TCP_CLOSE)
		count(FAILED);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit_skb, const struct sock *socket)
{
	count(RETRANSMITS);
	return 0;
}
