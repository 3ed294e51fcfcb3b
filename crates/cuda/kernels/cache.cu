// What decoding over a cache of keys and values takes: rows of the cache written in place, parts of attentions joined,
// and what is asked of logits.
#include "arrays.cuh"

// Rows of x and y, [rows, width], to the rows `slots` of keys and values; slots that are not there are passed over.
KERNEL(256, write_keys, Array x, Array y, const unsigned* slots, Array keys, Array values, long long count, int width, int capacity) {
    take_turn();
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const unsigned slot = slots[i / width];
    if (slot >= (unsigned)capacity) return;
    const long long to = (long long)slot * width + i % width;
    put(keys, to, get(x, i));
    put(values, to, get(y, i));
}

// What attention over spans of the keys gave: weighted sums [spans, rows, dim], and largest score (to the base of two)
// and sum of weights [spans, rows, 2]; a row is a query of a head.
KERNEL(256, join_spans, const float* sums, const float* marks, Array o, long long rows, int dim, int spans) {
    take_turn();
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * dim) return;
    const long long row = i / dim;
    float largest = -1e30f;
    for (int span = 0; span < spans; span++) {
        const float found = marks[(span * rows + row) * 2];
        if (found > largest) largest = found;
    }
    float sum = 0.0f, total = 0.0f;
    for (int span = 0; span < spans; span++) {
        const float* mark = marks + (span * rows + row) * 2;
        const float factor = power_of_two(mark[0] - largest);
        total += mark[1] * factor;
        sum += sums[(span * rows) * dim + i] * factor;
    }
    // A query that sees no key gets nothing.
    put(o, i, total > 0.0f ? sum / total : 0.0f);
}

struct Found { double logit, largest, sum; long long token; };
// Of every row of logits [rows, tokens]: the first of the largest that is not among `barred`, and what softmax needs
// to know: the largest logit and the sum of exponentials below it, in f64. `barred` has (token, kind): 1 is never
// found, 2 has no share, 3 both. A block of 512 a row. 16 KiB of shared memory.
KERNEL(512, confidence, Array logits, const unsigned* barred, int count, int tokens, Found* found) {
    take_turn();
    SHARED(memory);
    double* sums = (double*)memory;                 // [512]
    float* tops = (float*)(memory + 512 * 8);       // [512] of what has a share
    float* bests = tops + 512;                      // [512] of what may be found
    int* places = (int*)(bests + 512);              // [512]
    const int thread = threadIdx.x;
    const long long row = blockIdx.x * (long long)tokens;
    auto kind = [&](int token) {
        unsigned kind = 0;
        for (int i = 0; i < count; i++) if (barred[2 * i] == (unsigned)token) kind |= barred[2 * i + 1];
        return kind;
    };
    float top = -1e38f, best = -1e38f;
    int place = 0x7fffffff;
    for (int token = thread; token < tokens; token += 512) {
        const float logit = get(logits, row + token);
        if (logit <= top && logit <= best) continue;
        const unsigned bars = kind(token);
        if (!(bars & 2) && !(logit <= top)) top = logit;
        if (!(bars & 1) && !(logit <= best)) { best = logit; place = token; }
    }
    tops[thread] = top;
    bests[thread] = best;
    places[thread] = place;
    for (int half = 256; half > 0; half /= 2) {
        barrier();
        if (thread < half) {
            const int other = thread + half;
            if (!(tops[other] <= tops[thread])) tops[thread] = tops[other];
            const bool more = bests[other] > bests[thread] || (bests[other] == bests[thread] && places[other] < places[thread]);
            if (more || bests[other] != bests[other]) { bests[thread] = bests[other]; places[thread] = places[other]; }
        }
    }
    barrier();
    top = tops[0];
    double sum = 0.0;
    for (int token = thread; token < tokens; token += 512) {
        const float logit = get(logits, row + token);
        // Below that a share is less than the last bit of f64.
        if (logit < top - 60.0f || kind(token) & 2) continue;
        sum += exponential_wide((double)logit - (double)top);
    }
    sums[thread] = sum;
    for (int half = 256; half > 0; half /= 2) {
        barrier();
        if (thread < half) sums[thread] += sums[thread + half];
    }
    if (thread == 0) found[blockIdx.x] = {(double)bests[0], (double)top, sums[0], places[0]};
}
