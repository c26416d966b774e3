/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* How long requests to block devices take, by device and by what is asked of it.
 *
 * One program at each completion: when a request was made is in the request (start_time_ns, what /proc/diskstats is
 * made of), so that nothing is attached where one is issued. */
#define SLOTS 64
#include "aether.h"

HISTOGRAMS(requests);

/* Counters of this object. Without `queue/iostats` a request does not know when it was made. */
enum { UNTIMED = 1 };

/* The first byte of a request's flags, by enum req_op: the even ones of these do not write. */
enum { OP_READ = 0, OP_WRITE = 1, OP_FLUSH = 2, OP_DISCARD = 3, OP_OTHER = 4 };

SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_rq_complete, struct request *request, int error, unsigned int bytes)
{
	/* It may be completed in parts; the last one is it. */
	if (bytes < request->__data_len)
		return 0;

	u64 start = request->start_time_ns;
	if (!start) {
		count(UNTIMED);
		return 0;
	}
	u32 op = request->cmd_flags & 0xff;
	if (op > OP_DISCARD)
		op = OP_OTHER;
	struct gendisk *disk = request->q->disk;
	u64 key = (u64)(u32)disk->major << 32 | (u64)((u32)disk->first_minor & 0xffffff) << 8 | op;
	u64 now = bpf_ktime_get_ns();
	record(&requests, key, now > start ? now - start : 0);
	return 0;
}
