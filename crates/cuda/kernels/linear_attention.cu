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
    take_turn();
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
    take_turn();
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
    take_turn();
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

// The same by tensor cores, for bf16 heads of 32 channels. Products do not care which value stands at which depth, nor
// which row or column is which, as long as both operands and the sums agree: so a lane takes neighbours from memory as
// they lie, and nothing passes through shared memory.
namespace linear_attention_parts {
struct alignas(8) Eight { unsigned u[2]; };
DEVICE unsigned lows(unsigned a, unsigned b) { return (a & 0xffffu) | b << 16; }
DEVICE unsigned highs(unsigned a, unsigned b) { return a >> 16 | (b & 0xffff0000u); }

// Sixteen rows of 32 channels: lane (g, t) has channels 8t to 8t + 7 of rows g and g + 8. Depths 2t, 2t + 1, 2t + 8 and
// 2t + 9 of step s are channels 8t + 4s to 8t + 4s + 3.
struct Rows {
    Four rows[2];
    DEVICE void load(const bf16* x, int row, int end, long long stride) {
        for (int i = 0; i < 2; i++) rows[i] = row + 8 * i < end ? *(const Four*)(x + (row + 8 * i) * stride) : Four{};
    }
    DEVICE void relu() { for (int i = 0; i < 2; i++) for (int j = 0; j < 4; j++) rows[i].u[j] = relu2(rows[i].u[j]); }
    DEVICE void multiply(float (&c)[4], int step, const unsigned (&right)[2]) const {
        const unsigned left[4] = {rows[0].u[2 * step], rows[1].u[2 * step], rows[0].u[2 * step + 1], rows[1].u[2 * step + 1]};
        multiply_add(c, left, right[0], right[1]);
    }
};
// Columns 2t and 2t + 1 of the tile n are channels 8t + 2n and 8t + 2n + 1, so sums lie as rows do.
DEVICE int column_of(int g, int n) { return g / 2 * 8 + 2 * n + g % 2; }
DEVICE void store(bf16* y, const float (&c)[4][4], int half, float factor) {
    Four u;
#pragma unroll
    for (int n = 0; n < 4; n++) u.u[n] = pack2(c[n][half * 2] * factor, c[n][half * 2 + 1] * factor);
    *(Four*)y = u;
}
}  // namespace linear_attention_parts

// As `linear_attention_states`. A block of 256 a (head, run, picture), a warp every eighth 16 tokens. 33 KiB of shared
// memory.
KERNEL(256, linear_attention_states_tiles, const bf16* key, const bf16* value, Heads h, int run, float* states) {
    take_turn();
    SHARED(memory);
    float* parts = (float*)memory;
    constexpr int size = 33 * 32;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.x, first = blockIdx.y * run, end = first + run < h.tokens ? first + run : h.tokens;
    const long long base = (long long)blockIdx.z * h.tokens * h.token_stride + (long long)head * h.head_stride + 4 * g;
    float sums[2][5][4] = {};
#pragma unroll 2
    for (int t0 = first + warp * 16; t0 < end; t0 += 128) {
        // Depths 2t, 2t + 1, 2t + 8 and 2t + 9 are tokens 4t to 4t + 3; channels are 4g to 4g + 3.
        Eight k[4], v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int token = t0 + 4 * t + i;
            const long long at = base + (long long)token * h.token_stride;
            k[i] = token < end ? *(const Eight*)(key + at) : Eight{};
            v[i] = token < end ? *(const Eight*)(value + at) : Eight{};
        }
#pragma unroll
        for (int m = 0; m < 2; m++) {
            unsigned u[4];
#pragma unroll
            for (int i = 0; i < 4; i++) u[i] = relu2(k[i].u[m]);
            const unsigned left[4] = {lows(u[0], u[1]), highs(u[0], u[1]), lows(u[2], u[3]), highs(u[2], u[3])};
#pragma unroll
            for (int n = 0; n < 2; n++) {
                multiply_add(sums[m][2 * n], left, lows(v[0].u[n], v[1].u[n]), lows(v[2].u[n], v[3].u[n]));
                multiply_add(sums[m][2 * n + 1], left, highs(v[0].u[n], v[1].u[n]), highs(v[2].u[n], v[3].u[n]));
            }
            // By ones: the weights.
            multiply_add(sums[m][4], left, 0x3f803f80u, 0x3f803f80u);
        }
    }
    float* mine = parts + warp * size;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = 4 * g + 2 * m + i / 2;
#pragma unroll
            for (int n = 0; n < 4; n++) mine[row * 32 + 4 * (2 * t + i % 2) + n] = sums[m][n][i];
            if (t == 0 && i % 2 == 0) mine[32 * 32 + row] = sums[m][4][i];
        }
    barrier();
    float* to = states + (((long long)blockIdx.z * gridDim.y + blockIdx.y) * h.heads + head) * size;
    for (int i = threadIdx.x; i < size; i += 256) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < 8; w++) sum += parts[w * size + i];
        to[i] = sum;
    }
}

// As `linear_attention_apply`, `run` tokens a block of 256. States keep their precision as two halves each.
KERNEL(256, linear_attention_apply_tiles, const bf16* query, Heads h, const float* states, int runs, float eps, bf16* o, Heads out, int run) {
    take_turn();
    SHARED(memory);
    float* s = (float*)memory;
    constexpr int size = 33 * 32;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.x, first = blockIdx.y * run, end = first + run < h.tokens ? first + run : h.tokens;
    const float* from = states + ((long long)blockIdx.z * runs * h.heads + head) * size;
    for (int i = threadIdx.x; i < size / 4; i += 256) {
        Floats sum = {};
#pragma unroll 4
        for (int r = 0; r < runs; r++) {
            const Floats part = *(const Floats*)(from + (long long)r * h.heads * size + 4 * i);
            for (int j = 0; j < 4; j++) sum.v[j] += part.v[j];
        }
        *(Floats*)(s + 4 * i) = sum;
    }
    barrier();
    unsigned high[2][5][2], low[2][5][2];
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int n = 0; n < 5; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int c = 8 * t + 4 * step + 2 * half;
                const float a = n < 4 ? s[c * 32 + column_of(g, n)] : s[32 * 32 + c];
                const float b = n < 4 ? s[(c + 1) * 32 + column_of(g, n)] : s[32 * 32 + c + 1];
                const unsigned u = pack2(a, b);
                high[step][n][half] = u;
                low[step][n][half] = pack2(a - low_half(u), b - high_half(u));
            }
    const bf16* queries = query + (long long)blockIdx.z * h.tokens * h.token_stride + (long long)head * h.head_stride + 8 * t;
    bf16* to = o + (long long)blockIdx.z * h.tokens * out.token_stride + (long long)head * out.head_stride + 8 * t;
    for (int t0 = first + warp * 16; t0 < end; t0 += 128) {
        Rows q;
        q.load(queries, t0 + g, end, h.token_stride);
        q.relu();
        float sums[4][4] = {}, weights[4] = {};
#pragma unroll
        for (int step = 0; step < 2; step++) {
#pragma unroll
            for (int n = 0; n < 4; n++) {
                q.multiply(sums[n], step, low[step][n]);
                q.multiply(sums[n], step, high[step][n]);
            }
            q.multiply(weights, step, low[step][4]);
            q.multiply(weights, step, high[step][4]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int token = t0 + g + 8 * half;
            if (token < end) store(to + (long long)token * out.token_stride, sums, half, 1.0f / (weights[2 * half] + eps));
        }
    }
}

// As `grouped`, the matrices as bf16.
KERNEL(256, grouped_tiles, const bf16* x, const float* mix, bf16* y, int rows, int groups, int run) {
    take_turn();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int group = blockIdx.x, first = blockIdx.y * run, end = first + run < rows ? first + run : rows;
    const float* m = mix + group * 32 * 32;
    unsigned right[2][4][2];
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int c = 8 * t + 4 * step + 2 * half;
                right[step][n][half] = pack2(m[c * 32 + column_of(g, n)], m[(c + 1) * 32 + column_of(g, n)]);
            }
    const long long stride = groups * 32LL, part = group * 32 + 8 * t;
    for (int row0 = first + warp * 16; row0 < end; row0 += 128) {
        Rows u;
        u.load(x + part, row0 + g, end, stride);
        float sums[4][4] = {};
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
            for (int n = 0; n < 4; n++) u.multiply(sums[n], step, right[step][n]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = row0 + g + 8 * half;
            if (row < end) store(y + row * stride + part, sums, half, 1.0f);
        }
    }
}
