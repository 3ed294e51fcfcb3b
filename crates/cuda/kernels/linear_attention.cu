// Linear attention over ReLU features of heads of at most 32 channels, and small matrices a head.
#include "arrays.cuh"

// Where heads lie: a token's and a head's stride in elements.
struct Heads { int tokens, heads, dim, token_stride, head_stride; };

namespace linear_attention_parts {
enum { LARGEST = 32, TILE = 32, PITCH = 33 };
}
using namespace linear_attention_parts;

// States of a head over a run of tokens: the sums of relu(k) (v, 1), [dim + 1, dim] with the weights last. A block of
// 128 a (head, run, picture); thread t has key channel t / 4 and every fourth value channel. 8.25 KiB of shared memory.
KERNEL(128, linear_attention_states, Array key, Array value, Heads h, int run, float* states) {
    SHARED(memory);
    float* k = (float*)memory;
    float* v = k + TILE * PITCH;
    const int head = blockIdx.x, first = blockIdx.y * run, thread = threadIdx.x;
    const int row = thread / 4, part = thread % 4;
    const long long base = (long long)blockIdx.z * h.tokens * h.token_stride + (long long)head * h.head_stride;
    float sums[LARGEST / 4] = {}, weight = 0.0f;
    for (int t0 = first; t0 < first + run && t0 < h.tokens; t0 += TILE) {
        const int t = t0 + row;
        const bool inside = t < h.tokens && t < first + run;
        for (int c = part; c < LARGEST; c += 4) {
            const bool known = inside && c < h.dim;
            const long long at = base + (long long)(known ? t : 0) * h.token_stride + (known ? c : 0);
            const float x = known ? get(key, at) : 0.0f;
            k[row * PITCH + c] = x > 0.0f || x != x ? x : 0.0f;
            v[row * PITCH + c] = known ? get(value, at) : 0.0f;
        }
        barrier();
        for (int t = 0; t < TILE; t++) {
            const float x = k[t * PITCH + row];
            weight += x;
#pragma unroll
            for (int i = 0; i < LARGEST / 4; i++) sums[i] += x * v[t * PITCH + part + 4 * i];
        }
        barrier();
    }
    if (row >= h.dim) return;
    float* to = states + (((long long)blockIdx.z * gridDim.y + blockIdx.y) * h.heads + head) * (h.dim + 1) * h.dim;
#pragma unroll
    for (int i = 0; i < LARGEST / 4; i++) if (part + 4 * i < h.dim) to[row * h.dim + part + 4 * i] = sums[i];
    if (part == 0) to[h.dim * h.dim + row] = weight;
}

// o = relu(q) states / (relu(q) weights + eps), the states of all runs added in order. A block of 128 a (head, 32
// tokens, picture); `out` says where heads lie in o. 4.2 KiB of shared memory.
KERNEL(128, linear_attention_apply, Array query, Heads h, const float* states, int runs, float eps, Array o, Heads out) {
    SHARED(memory);
    float* s = (float*)memory;
    const int head = blockIdx.x, thread = threadIdx.x, size = (h.dim + 1) * h.dim;
    for (int i = thread; i < size; i += 128) {
        float sum = 0.0f;
        for (int r = 0; r < runs; r++) sum += states[(((long long)blockIdx.z * runs + r) * h.heads + head) * size + i];
        s[i] = sum;
    }
    barrier();
    const int t = blockIdx.y * 32 + thread / 4, part = thread % 4;
    if (t >= h.tokens) return;
    const long long from = ((long long)blockIdx.z * h.tokens + t) * h.token_stride + (long long)head * h.head_stride;
    float sums[LARGEST / 4] = {}, weight = 0.0f;
    for (int c = 0; c < h.dim; c++) {
        float q = get(query, from + c);
        q = q > 0.0f || q != q ? q : 0.0f;
        weight += q * s[h.dim * h.dim + c];
#pragma unroll
        for (int i = 0; i < LARGEST / 4; i++) if (part + 4 * i < h.dim) sums[i] += q * s[c * h.dim + part + 4 * i];
    }
    const long long to = ((long long)blockIdx.z * h.tokens + t) * out.token_stride + (long long)head * out.head_stride;
#pragma unroll
    for (int i = 0; i < LARGEST / 4; i++) if (part + 4 * i < h.dim) put(o, to + part + 4 * i, sums[i] / (weight + eps));
}

// Each group's `dim` channels by a matrix of its own, [groups, dim (in), dim (out)]. A block of 256 a (group, run of
// rows). 4 KiB of shared memory.
KERNEL(256, grouped, Array x, const float* mix, Array y, int rows, int groups, int dim, int run) {
    SHARED(memory);
    float* m = (float*)memory;
    const int group = blockIdx.x, first = blockIdx.y * run;
    for (int i = threadIdx.x; i < dim * dim; i += 256) m[i] = mix[(long long)group * dim * dim + i];
    barrier();
    for (int i = threadIdx.x; i < run * dim; i += 256) {
        const int row = first + i / dim, to = i % dim;
        if (row >= rows) break;
        const long long at = ((long long)row * groups + group) * dim;
        float sum = 0.0f;
        for (int c = 0; c < dim; c++) sum += get(x, at + c) * m[c * dim + to];
        put(y, at + to, sum);
    }
}
