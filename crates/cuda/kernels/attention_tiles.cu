// Softmax attention of bf16 by tensor cores, for heads of at most 128 channels that divide by 8.
#include "arrays.cuh"

struct AttentionTiles {
    int queries, keys, heads, groups, dim;
    int causal;  // keys before the first query, -1: no causal mask
    int window;  // with a causal mask: keys a query sees at most; 0: all
    float scale;
};

namespace attention_tiles_parts {
enum { QUERIES = 64, KEYS = 64, THREADS = 128 };
constexpr float HIDDEN = 3e38f;

// Rows of one head from `first` on, `16 steps` channels of each, to shared memory; what is not there is zero.
template <int steps>
DEVICE void load(bf16* to, const bf16* from, int first, int rows, int dim, long long stride) {
    constexpr int chunks = steps * 2, pitch = steps * 16 + 8;
    for (int i = threadIdx.x; i < KEYS * chunks; i += THREADS) {
        const int r = i / chunks, c = i % chunks;
        const bool inside = first + r < rows && c * 8 < dim;
        copy16(to + r * pitch + c * 8, inside ? from + (first + r) * stride + c * 8 : from, inside ? 16 : 0);
    }
}

// With SPANS, blocks along z take spans of the keys instead of batches, and give what `join_spans` takes.
struct Parts { float* sums; float* marks; int span; };
template <int steps, bool SPANS>
DEVICE void attend(const bf16* q, const bf16* k, const bf16* v, bf16* o, const unsigned* lengths, const unsigned* mask, const unsigned* ends,
                   const Parts& parts, const AttentionTiles& s) {
    SHARED(memory);
    constexpr int pitch = steps * 16 + 8;  // an odd number of chunks: eight rows lie in all banks
    // Keys and values of two steps: one is multiplied while the next arrives.
    bf16* qs = (bf16*)memory;
    bf16* rooms = qs + QUERIES * pitch;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int q0 = blockIdx.x * QUERIES, head = blockIdx.y, group = head / (s.heads / s.groups);
    const long long batch = SPANS ? 0 : blockIdx.z, wide = (long long)s.heads * s.dim, narrow = (long long)s.groups * s.dim;
    const bf16* queries = q + batch * s.queries * wide + (long long)head * s.dim;
    const bf16* keys = k + batch * s.keys * narrow + (long long)group * s.dim;
    const bf16* values = v + batch * s.keys * narrow + (long long)group * s.dim;
    load<steps>(qs, queries, q0, s.queries, s.dim, wide);
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
    if (SPANS) {
        begin = blockIdx.z * parts.span;
        if (begin + parts.span < end) end = begin + parts.span;
    }
    auto fetch = [&](bf16* room, int k0) {
        load<steps>(room, keys, k0, end, s.dim, narrow);
        load<steps>(room + KEYS * pitch, values, k0, end, s.dim, narrow);
    };
    fetch(rooms, begin);
    commit();
    wait<0>();
    barrier();
    unsigned left[steps][4];
#pragma unroll
    for (int i = 0; i < steps; i++) load_matrices(left[i], qs + (warp * 16 + lane % 16) * pitch + i * 16 + lane / 16 * 8);
    // Scores are kept as logarithms to the base of two.
    const float scale = s.scale * 1.4426950409f;
    float sums[steps * 2][4] = {}, largest[2] = {-1e30f, -1e30f}, total[2] = {};
#pragma unroll 1
    for (int k0 = begin, turn = 0; k0 < end; k0 += KEYS, turn ^= 1) {
        const bf16* ks = rooms + turn * 2 * KEYS * pitch;
        const bf16* vs = ks + KEYS * pitch;
        if (k0 > begin) {
            wait<0>();
            barrier();
        }
        if (k0 + KEYS < end) fetch(rooms + (turn ^ 1) * 2 * KEYS * pitch, k0 + KEYS);
        commit();
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < steps; i++)
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                unsigned right[4];
                load_matrices(right, ks + (n * 16 + lane % 8 + lane / 16 * 8) * pitch + i * 16 + lane / 8 % 2 * 8);
                multiply_add(scores[2 * n], left[i], right[0], right[1]);
                multiply_add(scores[2 * n + 1], left[i], right[2], right[3]);
            }
        // A lane has two rows, four lanes have a row. Of keys that are all seen nothing is asked.
        const bool whole = k0 + KEYS <= end && !mask && !ends && s.causal < 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = -1e30f;
            if (whole) {
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) top = larger(top, larger(scores[n][half * 2], scores[n][half * 2 + 1]));
                top *= scale;
            } else {
                const int row = q0 + warp * 16 + half * 8 + lane / 4, reach = row + s.causal;
                const int last = ends && row < s.queries ? (int)ends[row] : end;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const int key = k0 + n * 8 + lane % 4 * 2 + j;
                        bool known = key < end && key < last && (!mask || mask[batch * s.keys + key]);
                        if (s.causal >= 0) known = known && key <= reach && (!s.window || key > reach - s.window);
                        float& score = scores[n][half * 2 + j];
                        // So far below all others that its power of two is zero.
                        if (known) top = larger(top, score * scale);
                        else score = -HIDDEN;
                    }
            }
            for (int other = 1; other < 4; other *= 2) top = larger(top, shuffle_xor(top, other));
            const float before = largest[half];
            largest[half] = larger(before, top);
            const float factor = power_of_two(before - largest[half]);
            total[half] *= factor;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float& score = scores[n][half * 2 + j];
                    score = power_of_two(score * scale - largest[half]);
                    total[half] += score;
                }
#pragma unroll
            for (int n = 0; n < steps * 2; n++) { sums[n][half * 2] *= factor; sums[n][half * 2 + 1] *= factor; }
        }
        // Sums of one product lie as the left operand of the next.
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++) {
            const unsigned weights[4] = {
                pack2(scores[2 * i][0], scores[2 * i][1]), pack2(scores[2 * i][2], scores[2 * i][3]),
                pack2(scores[2 * i + 1][0], scores[2 * i + 1][1]), pack2(scores[2 * i + 1][2], scores[2 * i + 1][3])};
#pragma unroll
            for (int n = 0; n < steps; n++) {
                unsigned right[4];
                load_matrices_transposed(right, vs + (i * 16 + lane % 16) * pitch + n * 16 + lane / 16 * 8);
                multiply_add(sums[2 * n], weights, right[0], right[1]);
                multiply_add(sums[2 * n + 1], weights, right[2], right[3]);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = total[half];
        for (int other = 1; other < 4; other *= 2) all += shuffle_xor(all, other);
        const int row = q0 + warp * 16 + half * 8 + lane / 4;
        if (row >= s.queries) continue;
        if (SPANS) {
            const long long at = ((long long)blockIdx.z * s.queries + row) * s.heads + head;
            if (lane % 4 == 0) {
                parts.marks[at * 2] = largest[half];
                parts.marks[at * 2 + 1] = all;
            }
#pragma unroll
            for (int n = 0; n < steps * 2; n++) {
                const int channel = n * 8 + lane % 4 * 2;
                if (channel < s.dim) {
                    parts.sums[at * s.dim + channel] = sums[n][half * 2];
                    parts.sums[at * s.dim + channel + 1] = sums[n][half * 2 + 1];
                }
            }
            continue;
        }
        // A query that sees no key gets nothing.
        const float factor = all > 0.0f ? 1.0f / all : 0.0f;
#pragma unroll
        for (int n = 0; n < steps * 2; n++) {
            const int channel = n * 8 + lane % 4 * 2;
            if (channel < s.dim)
                *(unsigned*)(o + ((batch * s.queries + row) * s.heads + head) * s.dim + channel) =
                    pack2(sums[n][half * 2] * factor, sums[n][half * 2 + 1] * factor);
        }
    }
}
}  // namespace attention_tiles_parts

// q and o are [batch, queries, heads, dim], k and v [batch, keys, groups, dim]; `lengths`, `mask` and `ends` as for
// `attention`. A block of 128 a (64 queries, head, batch). 320 (16 steps + 8) halves of shared memory, for
// 16 steps >= dim. Of spans: of one batch, a block a (64 queries, head, `span` keys), which divide by 64.
#define ATTENTION_TILES(steps)                                                                                             \
    KERNEL(128, attention_tiles_##steps, const bf16* q, const bf16* k, const bf16* v, bf16* o, const unsigned* lengths,    \
           const unsigned* mask, const unsigned* ends, AttentionTiles shape) {                                             \
        take_turn();                                                                                                   \
        attention_tiles_parts::attend<steps, false>(q, k, v, o, lengths, mask, ends, {}, shape);                           \
    }
#define ATTENTION_SPANS(steps)                                                                                             \
    KERNEL(128, attention_spans_##steps, const bf16* q, const bf16* k, const bf16* v, const unsigned* ends, float* sums,   \
           float* marks, int span, AttentionTiles shape) {                                                                 \
        take_turn();                                                                                                   \
        attention_tiles_parts::attend<steps, true>(q, k, v, nullptr, nullptr, nullptr, ends, {sums, marks, span}, shape);  \
    }
ATTENTION_TILES(2)
ATTENTION_TILES(4)
ATTENTION_TILES(5)
ATTENTION_TILES(8)
ATTENTION_SPANS(2)
ATTENTION_SPANS(4)
ATTENTION_SPANS(8)
