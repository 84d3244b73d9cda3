/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The only process of bench/memory_bound.py's guest: nanoseconds of a read, each of which needs the
 * one before it, of a word in another page, over more pages than a TLB holds. Then the machine is
 * switched off. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define MIB 256
#define COUNT ((size_t)MIB << 17) /* of 8 bytes */
#define READS 6000000

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(void)
{
	uint64_t *cell = malloc(COUNT * sizeof *cell);
	uint64_t at = 0;
	double began;

	if (!cell)
		return 1;
	/* A word in each page of 4 KiB says which is next: a random cycle (Sattolo). */
	size_t pages = COUNT / 512;
	for (size_t i = 0; i < pages; i++)
		cell[i * 512] = i;
	for (size_t i = pages - 1; i > 0; i--) {
		size_t j = next() % i;
		uint64_t kept = cell[i * 512];
		cell[i * 512] = cell[j * 512];
		cell[j * 512] = kept;
	}
	began = now();
	for (long i = 0; i < READS; i++)
		at = cell[at * 512];
	printf("ns %.2f %d\n", (now() - began) / READS, at == (uint64_t)-1);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
