/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How long connections of this machine to others take to be made, by the cgroup that asked, and what was sent anew. */
#include "aether.h"

HISTOGRAMS(connects);
SPELLS

enum { RETRANSMITS = 1, FAILED = 2 };

/* Of net/tcp_states.h. */
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_CLOSE = 7 };
#define IPPROTO_TCP 6

#define ATTEMPT_SLOTS 8192

struct attempt {
	u64 socket;
	u64 since;
	u64 cgroup;
	u64 spell;
};

/* What is under way. Two connections in one slot drive each other out, and one that nobody ever finished costs nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ATTEMPT_SLOTS);
	__type(key, u32);
	__type(value, struct attempt);
} attempts SEC(".maps");

/* The address as a number: the verifier lets nobody reckon with a pointer. */
INLINE u64 address_of(const struct sock *socket)
{
	u64 address = 0;
	bpf_probe_read_kernel(&address, sizeof(address), &socket);
	return address;
}

INLINE struct attempt *attempt_of(u64 socket)
{
	/* Fibonacci hashing: addresses differ in their middle bits. */
	u32 at = (u32)(socket * 0x9e3779b97f4a7c15ULL >> 40) % ATTEMPT_SLOTS;
	return bpf_map_lookup_elem(&attempts, &at);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, const struct sock *socket, const int from, const int to)
{
	if (to != TCP_SYN_SENT && from != TCP_SYN_SENT)
		return 0;
	u64 address = address_of(socket);
	struct attempt *attempt = attempt_of(address);
	if (!attempt)
		return 0;

	if (to == TCP_SYN_SENT) {
		if (socket->sk_protocol != IPPROTO_TCP)
			return 0;
		/* In connect(2), so the current task is the one that asked. */
		attempt->since = bpf_ktime_get_ns();
		attempt->cgroup = cgroup_of(bpf_get_current_task_btf());
		attempt->spell = this_spell();
		attempt->socket = address;
		return 0;
	}
	if (attempt->socket != address)
		return 0;
	u64 cgroup = attempt->cgroup, since = attempt->since;
	attempt->socket = 0;
	if (attempt->spell != this_spell())
		return 0;
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
