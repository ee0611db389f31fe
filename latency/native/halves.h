// Whether a network has been measured well enough: two halves of its slices against each other, as in runner.py.
#ifndef POCKETNAS_HALVES_H
#define POCKETNAS_HALVES_H

#include <math.h>
#include <stdlib.h>

#define DISTURBED 1.15  // a probe this much slower than the fastest one: the core was slowed down or taken away

_Noreturn void give_up(const char *format, ...);

static int rising(const void *a, const void *b) {
    long long one = *(const long long *)a, other = *(const long long *)b;
    return (one > other) - (one < other);
}

// low_ns of runner.py over slices first, first + step, … below last, of which every one has an uninterrupted run.
static double low_ns(const long long *fastest, const long long *probes, int first, int last, int step, long long *room) {
    int count = 0, all = 0;
    long long least = probes[first];
    for (int i = first; i < last; i += step, all++)
        if (probes[i] < least) least = probes[i];
    for (int i = first; i < last; i += step)
        if ((double)probes[i] <= DISTURBED * (double)least) room[count++] = fastest[i];
    if (4 * count < all) {
        count = 0;
        for (int i = first; i < last; i += step) room[count++] = fastest[i];
    }
    qsort(room, count, sizeof *room, rising);
    return (double)room[count / 4];
}

// half_difference of runner.py: how much halves of the slices disagree, relative to the smaller.
// A slice's fastest run is 0 where all were interrupted.
static double half_difference(const long long *every_fastest, const long long *every_probe, int slices) {
    int usable = 0;
    long long *fastest = malloc(3 * sizeof(long long) * slices), *probes = fastest + slices;
    if (!fastest) give_up("the device is out of memory");
    for (int i = 0; i < slices; i++)
        if (every_fastest[i]) fastest[usable] = every_fastest[i], probes[usable++] = every_probe[i];
    double worst = INFINITY;
    if (usable >= 4) {
        long long *room = probes + slices;
        double even = low_ns(fastest, probes, 0, usable, 2, room), odd = low_ns(fastest, probes, 1, usable, 2, room);
        double early = low_ns(fastest, probes, 0, usable / 2, 1, room), late = low_ns(fastest, probes, usable / 2, usable, 1, room);
        worst = fmax(fabs(even - odd) / fmin(even, odd), fabs(early - late) / fmin(early, late));
    }
    free(fastest);
    return worst;
}

#endif
