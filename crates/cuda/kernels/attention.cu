// Softmax attention with groups of query heads that share keys, masks and a cap, for heads of at most 256 channels.
#include "arrays.cuh"

struct AttentionShape {
    int queries, keys, heads, groups, dim;
    int causal;  // keys before the first query, -1: no causal mask
    int window;  // with a causal mask: keys a query sees at most; 0: all
    float scale, softcap;  // softcap 0: none
};

namespace attention_parts {
enum { QUERIES = 16, KEYS = 32, WARPS = 4, EACH = QUERIES / WARPS, CHANNELS = 8 };
}
using namespace attention_parts;

// q and o are [batch, queries, heads, dim], k and v [batch, keys, groups, dim]. `lengths` [batch]: keys that are
// valid, or null; `mask` [batch, keys]: keys that are seen, or null; `ends` [queries]: one past the last key of
// each query, or null. A block of 128 a (16 queries, head, batch); a
// warp has four queries, a lane a key of a tile, then channels. (16 + 32 + 33) dim + 512 floats of shared memory.
KERNEL(128, attention, Array q, Array k, Array v, Array o, const unsigned* lengths, const unsigned* mask, const unsigned* ends, AttentionShape s) {
    take_turn();
    SHARED(memory);
    float* qs = (float*)memory;                  // [QUERIES][dim]
    float* ks = qs + QUERIES * s.dim;            // [KEYS][dim + 1]
    float* vs = ks + KEYS * (s.dim + 1);         // [KEYS][dim]
    float* weights = vs + KEYS * s.dim;          // [QUERIES][KEYS]
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int q0 = blockIdx.x * QUERIES, head = blockIdx.y, group = head / (s.heads / s.groups);
    const long long batch = blockIdx.z;
    for (int i = thread; i < QUERIES * s.dim; i += 128) {
        const int row = q0 + i / s.dim;
        qs[i] = row < s.queries ? get(q, ((batch * s.queries + row) * s.heads + head) * s.dim + i % s.dim) * s.scale : 0.0f;
    }
    float sums[EACH][CHANNELS] = {}, largest[EACH], total[EACH] = {};
    for (int e = 0; e < EACH; e++) largest[e] = -1e30f;
    int end = lengths && (int)lengths[batch] < s.keys ? lengths[batch] : s.keys, begin = 0;
    if (s.causal >= 0) {
        const int last = q0 + QUERIES + s.causal;
        if (last < end) end = last;
        if (s.window && q0 + s.causal + 1 - s.window > 0) begin = (q0 + s.causal + 1 - s.window) / KEYS * KEYS;
    }
    if (ends) {
        int last = 0;
        for (int row = q0; row < q0 + QUERIES && row < s.queries; row++) if ((int)ends[row] > last) last = ends[row];
        if (last < end) end = last;
    }
    for (int k0 = begin; k0 < end; k0 += KEYS) {
        barrier();
        for (int i = thread; i < KEYS * s.dim; i += 128) {
            const int row = k0 + i / s.dim, c = i % s.dim;
            const long long at = ((batch * s.keys + row) * s.groups + group) * s.dim + c;
            ks[i / s.dim * (s.dim + 1) + c] = row < end ? get(k, at) : 0.0f;
            vs[i] = row < end ? get(v, at) : 0.0f;
        }
        barrier();
        float scores[EACH] = {};
        for (int c = 0; c < s.dim; c++) {
            const float key = ks[lane * (s.dim + 1) + c];
#pragma unroll
            for (int e = 0; e < EACH; e++) scores[e] += qs[(warp * EACH + e) * s.dim + c] * key;
        }
        const int key = k0 + lane;
        const bool known = key < end && (!mask || mask[batch * s.keys + key]);
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const int row = q0 + warp * EACH + e, reach = row + s.causal;
            bool seen = known && (!ends || row >= s.queries || key < (int)ends[row]);
            if (s.causal >= 0) seen = seen && key <= reach && (!s.window || key > reach - s.window);
            if (s.softcap > 0.0f) scores[e] = s.softcap * hyperbolic_tangent(scores[e] / s.softcap);
            const float top = largest_of_warp(seen ? scores[e] : -1e30f);
            const float before = largest[e];
            if (top > before) largest[e] = top;
            const float factor = exponential(before - largest[e]), weight = seen ? exponential(scores[e] - largest[e]) : 0.0f;
            total[e] = total[e] * factor + sum_of_warp(weight);
            for (int j = 0; j < CHANNELS; j++) sums[e][j] *= factor;
            weights[(warp * EACH + e) * KEYS + lane] = weight;
        }
        warp_barrier();
        for (int t = 0; t < KEYS; t++) {
#pragma unroll
            for (int j = 0; j < CHANNELS; j++) {
                const int c = lane + 32 * j;
                const float value = c < s.dim ? vs[t * s.dim + c] : 0.0f;
#pragma unroll
                for (int e = 0; e < EACH; e++) sums[e][j] += weights[(warp * EACH + e) * KEYS + t] * value;
            }
        }
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int row = q0 + warp * EACH + e;
        if (row >= s.queries) continue;
#pragma unroll
        for (int j = 0; j < CHANNELS; j++) {
            const int c = lane + 32 * j;
            // A query that sees no key gets nothing.
            if (c < s.dim) put(o, ((batch * s.queries + row) * s.heads + head) * s.dim + c, total[e] > 0.0f ? sums[e][j] / total[e] : 0.0f);
        }
    }
}

// Half-split rotation of the first 2 half channels of [rows, heads, dim] by the angles [rows, half], given as cosines
// and sines; the others pass. A thread has eight pairs, or eight channels that pass, where both divide by eight, else
// one.
KERNEL(256, rotary, Array x, const float* cosines, const float* sines, Array y, long long rows, int heads, int dim, int half) {
    take_turn();
    const int each = half % 8 == 0 && dim % 8 == 0 ? 8 : 1, turned = half / each, chunks = dim / each - turned;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * heads * chunks) return;
    const long long head = i / chunks, row = head / heads;
    const int chunk = (int)(i - head * chunks);
    const bool passes = chunk >= turned;
    const long long at = head * dim + (passes ? chunk + turned : chunk) * each, angle = row * half + chunk * each;
    if (each == 8) {
        float a[8], b[8], c[8], s[8];
        get8(x, at, a);
        if (!passes) {
            get8(x, at + half, b);
            get8(Array{(void*)cosines, 1, 0}, angle, c);
            get8(Array{(void*)sines, 1, 0}, angle, s);
            for (int j = 0; j < 8; j++) {
                const float first = a[j] * c[j] - b[j] * s[j];
                b[j] = b[j] * c[j] + a[j] * s[j];
                a[j] = first;
            }
            put8(y, at + half, b);
        }
        put8(y, at, a);
        return;
    }
    const float a = get(x, at);
    if (passes) {
        put(y, at, a);
        return;
    }
    const float b = get(x, at + half);
    put(y, at, a * cosines[angle] - b * sines[angle]);
    put(y, at + half, b * cosines[angle] + a * sines[angle]);
}
