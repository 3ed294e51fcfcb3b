// Softmax attention of bf16 by tensor cores, for heads of at most 256 channels that divide by 8, with a cap.
#include "arrays.cuh"

struct AttentionWide {
    int queries, keys, heads, groups, dim;
    int causal;  // keys before the first query, -1: no causal mask
    int window;  // with a causal mask: keys a query sees at most; 0: all
    float scale, softcap;  // softcap 0: none
};

namespace attention_wide_parts {
enum { QUERIES = 16, KEYS = 64, THREADS = 128, PITCH = 256 + 8, SCORES = KEYS + 4, GROUPS = 4 };

// `count` rows of one head from `first` on, to shared memory, in sixteens of channels; what is not there is zero.
DEVICE void load(bf16* to, const bf16* from, int first, int count, int rows, int dim, long long stride) {
    const int c = threadIdx.x % 32;
    if (c >= (dim + 15) / 16 * 2) return;
    for (int r = threadIdx.x / 32; r < count; r += THREADS / 32) {
        const bool inside = first + r < rows && c * 8 < dim;
        copy16(to + r * PITCH + c * 8, inside ? from + (first + r) * stride + c * 8 : from, inside ? 16 : 0);
    }
}

DEVICE void attend(const bf16* q, const bf16* k, const bf16* v, bf16* o, const unsigned* lengths, const unsigned* mask, const AttentionWide& s) {
    SHARED(memory);
    bf16* qs = (bf16*)memory;
    bf16* ks = qs + QUERIES * PITCH;
    bf16* vs = ks + KEYS * PITCH;
    float* scores = (float*)(vs + KEYS * PITCH);
    const float hidden = -3e38f;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int q0 = blockIdx.x * QUERIES, head = blockIdx.y, group = head / (s.heads / s.groups), sixteens = (s.dim + 15) / 16;
    const long long batch = blockIdx.z, wide = (long long)s.heads * s.dim, narrow = (long long)s.groups * s.dim;
    const bf16* keys = k + batch * s.keys * narrow + (long long)group * s.dim;
    const bf16* values = v + batch * s.keys * narrow + (long long)group * s.dim;
    int end = lengths && (int)lengths[batch] < s.keys ? lengths[batch] : s.keys, begin = 0;
    if (s.causal >= 0) {
        const int last = q0 + QUERIES + s.causal;
        if (last < end) end = last;
        if (s.window && q0 + s.causal + 1 - s.window > 0) begin = (q0 + s.causal + 1 - s.window) / KEYS * KEYS;
    }
    load(qs, q + batch * s.queries * wide + (long long)head * s.dim, q0, QUERIES, s.queries, s.dim, wide);
    load(ks, keys, begin, KEYS, end, s.dim, narrow);
    commit();
    load(vs, values, begin, KEYS, end, s.dim, narrow);
    commit();
    float sums[GROUPS][2][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
    for (int k0 = begin; k0 < end; k0 += KEYS) {
        // The keys are there; the values may be under way.
        wait<1>();
        barrier();
        float mine[2][4] = {};
#pragma unroll 4
        for (int i = 0; i < sixteens; i++) {
            unsigned left[4], right[4];
            load_matrices(left, qs + lane % 16 * PITCH + i * 16 + lane / 16 * 8);
            load_matrices(right, ks + (warp * 16 + lane % 8 + lane / 16 * 8) * PITCH + i * 16 + lane / 8 % 2 * 8);
            multiply_add(mine[0], left, right[0], right[1]);
            multiply_add(mine[1], left, right[2], right[3]);
        }
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = i / 2 * 8 + g, column = warp * 16 + n * 8 + t * 2 + i % 2, key = k0 + column, reach = q0 + row + s.causal;
                bool seen = key < end && (!mask || mask[batch * s.keys + key]);
                if (s.causal >= 0) seen = seen && key <= reach && (!s.window || key > reach - s.window);
                float score = mine[n][i] * s.scale;
                if (s.softcap > 0.0f) score = s.softcap * hyperbolic_tangent(score / s.softcap);
                scores[row * SCORES + column] = seen ? score : hidden;
            }
        // All scores are there, and all have left the keys.
        barrier();
        if (k0 + KEYS < end) load(ks, keys, k0 + KEYS, KEYS, end, s.dim, narrow);
        commit();
        // Rows g and g + 8; keys 16i + 2t, 16i + 2t + 1, and those eight further.
        unsigned weights[KEYS / 16][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float* row = scores + (half * 8 + g) * SCORES;
            float weight[KEYS / 16][4], top = hidden;
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    weight[i][j] = row[i * 16 + j / 2 * 8 + t * 2 + j % 2];
                    top = weight[i][j] > top ? weight[i][j] : top;
                }
            for (int other = 1; other < 4; other *= 2) { const float found = shuffle_xor(top, other); top = found > top ? found : top; }
            const float before = largest[half];
            if (top > before) largest[half] = top;
            const float factor = exponential(before - largest[half]);
            total[half] *= factor;
#pragma unroll
            for (int i = 0; i < KEYS / 16; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    // NaN is not hidden.
                    weight[i][j] = weight[i][j] <= hidden ? 0.0f : exponential(weight[i][j] - largest[half]);
                    total[half] += weight[i][j];
                }
                weights[i][half] = pack2(weight[i][0], weight[i][1]);
                weights[i][half + 2] = pack2(weight[i][2], weight[i][3]);
            }
#pragma unroll
            for (int n = 0; n < GROUPS; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) { sums[n][j][half * 2] *= factor; sums[n][j][half * 2 + 1] *= factor; }
        }
        // The values are there; the next keys may be under way.
        wait<1>();
        barrier();
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
#pragma unroll
            for (int n = 0; n < GROUPS; n++) {
                if (warp * GROUPS + n >= sixteens) continue;
                unsigned right[4];
                load_matrices_transposed(right, vs + (i * 16 + lane % 16) * PITCH + (warp * GROUPS + n) * 16 + lane / 16 * 8);
                multiply_add(sums[n][0], weights[i], right[0], right[1]);
                multiply_add(sums[n][1], weights[i], right[2], right[3]);
            }
        // All have left the values and the scores.
        barrier();
        if (k0 + KEYS < end) load(vs, values, k0 + KEYS, KEYS, end, s.dim, narrow);
        commit();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = total[half];
        for (int other = 1; other < 4; other *= 2) all += shuffle_xor(all, other);
        const int row = q0 + half * 8 + g;
        if (row >= s.queries) continue;
        // A query that sees no key gets nothing.
        const float factor = all > 0.0f ? 1.0f / all : 0.0f;
#pragma unroll
        for (int n = 0; n < GROUPS; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int channel = (warp * GROUPS + n) * 16 + j * 8 + t * 2;
                if (channel < s.dim)
                    *(unsigned*)(o + (batch * s.queries + row) * wide + head * s.dim + channel) =
                        pack2(sums[n][j][half * 2] * factor, sums[n][j][half * 2 + 1] * factor);
            }
    }
}
}  // namespace attention_wide_parts

// q and o are [batch, queries, heads, dim], k and v [batch, keys, groups, dim]; `lengths` and `mask` as for `attention`.
// A block of 128 a (16 queries, head, batch). Scores of 64 keys are the work of four warps, 16 keys each; then each
// has all weights and a quarter of the channels. 80384 bytes of shared memory.
KERNEL(128, attention_wide, const bf16* q, const bf16* k, const bf16* v, bf16* o, const unsigned* lengths, const unsigned* mask, AttentionWide s) {
    take_turn();
    attention_wide_parts::attend(q, k, v, o, lengths, mask, s);
}
