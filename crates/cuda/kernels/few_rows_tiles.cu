// Products of at most 64 rows, bound by reading weights: those stand where rows stand elsewhere, 16 bytes a lane
// straight from memory, and rows of x are the columns. Weights are bf16, or codes of 4 or 8 bits that are widened in
// registers. The depth may be split over blocks, whose parts `sum_parts` adds in order.
#include "epilogue.cuh"

// Codes [columns, depth] raised to be positive; a scale, and perhaps an addend, for every 32 of the depth; depth divides
// by 128. Eight neighbours k of 4 bits lie in a word as k0 k2 k4 k6 k1 k3 k5 k7, lowest first.
struct Codes {
    const unsigned char* codes;
    const bf16* scales;
    const bf16* zeros;  // or null
    int depth, unused;
};

namespace few_rows_parts {
enum { WARPS = 4, THREADS = 128, CHUNK = 128, PITCH = CHUNK + 32 };

// Two copies side by side.
DEVICE unsigned twice(bf16 x) { return x.bits | (unsigned)x.bits << 16; }

// What a lane has of a row: EACH neighbours of the depth, in parts of eight as four pairs. A warp takes 16 TILES rows.
struct Halves {
    enum { EACH = 8, TILES = 1 };
    const bf16* w;
    int depth;  // divides by 8
    struct Held { Four values; };
    DEVICE void load(Held& held, long long row, int k) const {
        Four none = {};
        held.values = k < depth ? *(const Four*)(w + row * depth + k) : none;
    }
    DEVICE void pairs(const Held& held, int, unsigned (&p)[4]) const { for (int i = 0; i < 4; i++) p[i] = held.values.u[i]; }
};
struct FourBits {
    enum { EACH = 32, TILES = 2 };
    Codes w;
    struct Held { Four codes; unsigned scale, zero; };
    DEVICE void load(Held& held, long long row, int k) const {
        held.codes = *(const Four*)(w.codes + (row * w.depth + k) / 2);
        const long long group = (row * w.depth + k) / 32;
        held.scale = twice(w.scales[group]);
        held.zero = w.zeros ? twice(w.zeros[group]) : 0x80008000u;
    }
    DEVICE void pairs(const Held& held, int part, unsigned (&p)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // The last bits of 128.0 count ones; one times that, less 136, is the code.
            const unsigned raised = (held.codes.u[part] >> 4 * i & 0x000f000fu) | 0x43004300u;
            p[i] = fused2(fused2(raised, 0x3f803f80u, 0xc308c308u), held.scale, held.zero);
        }
    }
};
struct EightBits {
    enum { EACH = 16, TILES = 2 };
    Codes w;
    struct Held { Four codes; float scale; };
    DEVICE void load(Held& held, long long row, int k) const {
        held.codes = *(const Four*)(w.codes + row * w.depth + k);
        held.scale = to_f32(w.scales[(row * w.depth + k) / 32]);
    }
    DEVICE void pairs(const Held& held, int part, unsigned (&p)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned two = held.codes.u[part * 2 + i / 2] >> 16 * (i % 2);
            // The last bits of 2^23 count ones.
            const float low = bits_to_f32(0x4b000000u | (two & 0xff)) - 8388736.0f, high = bits_to_f32(0x4b000000u | (two >> 8 & 0xff)) - 8388736.0f;
            p[i] = pack2(low * held.scale, high * held.scale);
        }
    }
};

// Rows of x [rows, inputs] are 8 EIGHTS at most. Blocks along x take columns, along z spans of the depth, which divide
// by a chunk. With more than one span sums go to `parts` [spans, rows, columns].
template <int EIGHTS, class Weights>
DEVICE void product(const Weights& w, const bf16* x, int rows, int columns, int inputs, int depth, int span, float* parts, const Steps& steps) {
    enum { EACH = Weights::EACH, TILES = Weights::TILES, GROUPS = CHUNK / 4 / EACH, OUTPUTS = WARPS * 16 * TILES, ROOM = EIGHTS * 8 * PITCH };
    SHARED(memory);
    bf16* rooms = (bf16*)memory;  // two of [8 EIGHTS][PITCH]
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int column0 = blockIdx.x * OUTPUTS, begin = blockIdx.z * span, end = begin + span < depth ? begin + span : depth;
    // Eight neighbours of the lane's n-th part lie behind those of the other three lanes, so that lanes read side by side.
    auto load_rows = [&](int k0, int room) {
#pragma unroll 1
        for (int i = thread; i < EIGHTS * 8 * (CHUNK / 8); i += THREADS) {
            const int r = i / (CHUNK / 8), c = i % (CHUNK / 8), within = c % (EACH / 2);
            const int slot = c - within + within % (EACH / 8) * 4 + within / (EACH / 8);
            const bool inside = r < rows && k0 + c * 8 < inputs;
            copy16(rooms + room * ROOM + r * PITCH + slot * 8, x + (inside ? (long long)r * inputs + k0 + c * 8 : 0), inside ? 16 : 0);
        }
        commit();
    };
    typename Weights::Held now[TILES][GROUPS][2], next[TILES][GROUPS][2];
    auto load_weights = [&](int k0) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int group = 0; group < GROUPS; group++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    int column = column0 + (warp * TILES + tile) * 16 + half * 8 + lane / 4;
                    if (column >= columns) column = columns - 1;
                    w.load(next[tile][group][half], column, k0 + (group * 4 + lane % 4) * EACH);
                }
    };
    float sums[TILES][EIGHTS][4] = {};
    load_rows(begin, 0);
    load_weights(begin);
    for (int k0 = begin, room = 0; k0 < end; k0 += CHUNK, room ^= 1) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int group = 0; group < GROUPS; group++)
#pragma unroll
                for (int half = 0; half < 2; half++) now[tile][group][half] = next[tile][group][half];
        if (k0 + CHUNK < end) {
            load_rows(k0 + CHUNK, room ^ 1);
            load_weights(k0 + CHUNK);
        } else {
            commit();
        }
        wait<1>();
        barrier();
#pragma unroll
        for (int group = 0; group < GROUPS; group++)
#pragma unroll
            for (int part = 0; part < EACH / 8; part++) {
                unsigned first[TILES][4], second[TILES][4];
#pragma unroll
                for (int tile = 0; tile < TILES; tile++) {
                    unsigned upper[4], lower[4];
                    w.pairs(now[tile][group][0], part, upper);
                    w.pairs(now[tile][group][1], part, lower);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        first[tile][2 * i] = upper[i];
                        first[tile][2 * i + 1] = lower[i];
                        second[tile][2 * i] = upper[2 + i];
                        second[tile][2 * i + 1] = lower[2 + i];
                    }
                }
#pragma unroll
                for (int n = 0; n < EIGHTS; n++) {
                    const bf16* from = rooms + room * ROOM + (n * 8 + lane / 4) * PITCH + (group * (EACH / 2) + part * 4 + lane % 4) * 8;
                    const Four right = *(const Four*)from;
#pragma unroll
                    for (int tile = 0; tile < TILES; tile++) {
                        multiply_add(sums[tile][n], first[tile], right.u[0], right.u[1]);
                        multiply_add(sums[tile][n], second[tile], right.u[2], right.u[3]);
                    }
                }
            }
        // The room is free for what comes after the next chunk.
        barrier();
    }
    float* room = (float*)memory;  // [8 EIGHTS][OUTPUTS + 4]
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                room[(n * 8 + lane % 4 * 2 + i % 2) * (OUTPUTS + 4) + (warp * TILES + tile) * 16 + i / 2 * 8 + lane / 4] = sums[tile][n][i];
    barrier();
#pragma unroll 1
    for (int i = thread; i < rows * (OUTPUTS / 8); i += THREADS) {
        const int r = i / (OUTPUTS / 8), offset = i % (OUTPUTS / 8) * 8, column = column0 + offset;
        if (column >= columns) continue;
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = room[r * (OUTPUTS + 4) + offset + j];
        if (gridDim.z == 1) {
            finish<false>(steps, v, r, column, columns);
            continue;
        }
        float* to = parts + ((long long)blockIdx.z * rows + r) * columns + column;
#pragma unroll
        for (int j = 0; j < 8; j++) if (column + j < columns) to[j] = v[j];
    }
}
}  // namespace few_rows_parts

#define FEW_ROWS(eights)                                                                                                          \
    KERNEL(128, few_rows_bf16_##eights, const bf16* x, const bf16* w, int rows, int columns, int inputs, int depth, int span,     \
           float* parts, Steps steps) {                                                                                           \
        take_turn();                                                                                                   \
        few_rows_parts::product<eights>(few_rows_parts::Halves{w, depth}, x, rows, columns, inputs, depth, span, parts, steps);   \
    }                                                                                                                             \
    KERNEL(128, few_rows_4bit_##eights, const bf16* x, Codes w, int rows, int columns, int inputs, int depth, int span,           \
           float* parts, Steps steps) {                                                                                           \
        take_turn();                                                                                                   \
        few_rows_parts::product<eights>(few_rows_parts::FourBits{w}, x, rows, columns, inputs, depth, span, parts, steps);        \
    }                                                                                                                             \
    KERNEL(128, few_rows_8bit_##eights, const bf16* x, Codes w, int rows, int columns, int inputs, int depth, int span,           \
           float* parts, Steps steps) {                                                                                           \
        take_turn();                                                                                                   \
        few_rows_parts::product<eights>(few_rows_parts::EightBits{w}, x, rows, columns, inputs, depth, span, parts, steps);       \
    }
FEW_ROWS(1)
FEW_ROWS(4)
FEW_ROWS(8)

// y = steps(the sum of the parts [spans, rows, columns], in order).
KERNEL(256, sum_parts, const float* parts, int spans, int rows, int columns, Steps steps) {
    take_turn();
    const int chunks = (columns + 7) / 8;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)rows * chunks) return;
    const long long row = i / chunks;
    const int column = i % chunks * 8;
    float v[8] = {};
    for (int span = 0; span < spans; span++) {
        const float* from = parts + (span * (long long)rows + row) * columns + column;
#pragma unroll
        for (int j = 0; j < 8; j++) if (column + j < columns) v[j] += from[j];
    }
    finish<false>(steps, v, row, column, columns);
}

// The values that codes of `bits` stand for, [columns, depth] as they are stored.
KERNEL(256, widen_codes, Codes w, int bits, Array y, long long count) {
    take_turn();
    const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at >= count) return;
    const float scale = to_f32(w.scales[at / 32]), zero = w.zeros ? to_f32(w.zeros[at / 32]) : 0.0f;
    float v[8];
    if (bits == 4) {
        const unsigned word = *(const unsigned*)(w.codes + at / 2);
        for (int j = 0; j < 8; j++) v[j] = (int)(word >> 4 * (j / 2 + j % 2 * 4) & 15) - 8;
    } else {
        for (int j = 0; j < 8; j++) v[j] = (int)w.codes[at + j] - 128;
    }
    for (int j = 0; j < 8; j++) v[j] = v[j] * scale + zero;
    put8(y, at, v);
}
