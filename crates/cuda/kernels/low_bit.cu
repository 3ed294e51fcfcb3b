// Linear layers over codes of 8 bits with a branch of few columns between its factors (SVDQuant, arXiv 2411.05007):
// y = steps(x_scale w_scale (x codes)(w codes)^T + low up^T), for any card since sm_80.
#include "epilogue.cuh"

namespace low_bit_parts {
// A step is 64 codes, or 32 columns of the branch: both fill the 64 bytes of a row.
enum { ROWS = 128, COLUMNS = 128, BYTES = 64, STAGES = 4, THREADS = 256, PITCH = COLUMNS + 4 };

DEVICE int swizzled(int row, int chunk) { return row * BYTES + (chunk ^ (row >> 1 & 3)) * 16; }
DEVICE void product(const signed char* x, const float* x_scales, const signed char* w, const float* w_scales, const bf16* low,
                    const bf16* up, int rows, int columns, int depth, int rank, const Steps& steps) {
    SHARED(memory);
    unsigned char* lefts = memory;
    unsigned char* rights = memory + STAGES * ROWS * BYTES;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
    const int whole = depth / BYTES, count = whole + rank / 32;
    auto load = [&](int step) {
        const bool branch = step >= whole;
        const unsigned char* left = branch ? (const unsigned char*)low : (const unsigned char*)x;
        const unsigned char* right = branch ? (const unsigned char*)up : (const unsigned char*)w;
        const long long pitch = branch ? 2 * rank : depth, from = (branch ? step - whole : step) * BYTES;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = (thread + i * THREADS) / 4, c = thread % 4;
            bool inside = row0 + r < rows;
            copy16(lefts + step % STAGES * ROWS * BYTES + swizzled(r, c), left + (inside ? (row0 + r) * pitch + from + c * 16 : 0), inside ? 16 : 0);
            inside = column0 + r < columns;
            copy16(rights + step % STAGES * COLUMNS * BYTES + swizzled(r, c), right + (inside ? (column0 + r) * pitch + from + c * 16 : 0), inside ? 16 : 0);
        }
    };
    const int top = warp / 4 * 64, side = warp % 4 * 32;
    // Waits for a step, and starts the load of one into the stage that all have left.
    auto take = [&](int step) {
        wait<STAGES - 2>();
        barrier();
        if (step + STAGES - 1 < count) load(step + STAGES - 1);
        commit();
    };
    auto fragments = [&](int step, int half, unsigned (&as)[4][4], unsigned (&bs)[2][4]) {
        const unsigned char* a = lefts + step % STAGES * ROWS * BYTES;
        const unsigned char* b = rights + step % STAGES * COLUMNS * BYTES;
#pragma unroll
        for (int m = 0; m < 4; m++) load_matrices(as[m], a + swizzled(top + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < 2; n++) load_matrices(bs[n], b + swizzled(side + n * 16 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
    };
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < count) load(step);
        commit();
    }
    int codes[4][4][4] = {};
    for (int step = 0; step < whole; step++) {
        take(step);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned as[4][4], bs[2][4];
            fragments(step, half, as, bs);
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) multiply_add_bytes(codes[m][n], as[m], bs[n / 2][n % 2 * 2], bs[n / 2][n % 2 * 2 + 1]);
        }
    }
    float sums[4][4][4];
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = row0 + top + m * 16 + i / 2 * 8 + lane / 4, column = column0 + side + n * 8 + lane % 4 * 2 + i % 2;
                sums[m][n][i] = row < rows && column < columns ? codes[m][n][i] * x_scales[row] * w_scales[column] : 0.0f;
            }
    for (int step = whole; step < count; step++) {
        take(step);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned as[4][4], bs[2][4];
            fragments(step, half, as, bs);
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int n = 0; n < 4; n++) multiply_add(sums[m][n], as[m], bs[n / 2][n % 2 * 2], bs[n / 2][n % 2 * 2 + 1]);
        }
    }
    // The sums go through shared memory, so that what follows is one small loop over 16 bytes a lane.
    float* room = (float*)memory;
    barrier();
#pragma unroll
    for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                room[(top + m * 16 + i / 2 * 8 + lane / 4) * PITCH + side + n * 8 + lane % 4 * 2 + i % 2] = sums[m][n][i];
    barrier();
    const int column = column0 + thread % 16 * 8;
#pragma unroll 1
    for (int r = thread / 16; r < ROWS; r += THREADS / 16) {
        if (row0 + r >= rows || column >= columns) continue;
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = room[r * PITCH + thread % 16 * 8 + j];
        finish<false>(steps, v, row0 + r, column, columns);
    }
}
}  // namespace low_bit_parts

// The rows of x times `factors` (null: ones) as about code times scale: codes [rows, padded] with zeros behind `depth`,
// scales [rows]. A warp a row.
KERNEL(256, quantize_rows, Array x, const float* factors, int rows, int depth, int padded, signed char* codes, float* scales) {
    take_turn();
    const long long row = blockIdx.x * 8LL + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= rows) return;
    auto read = [&](int k, float (&v)[8]) {
        if (depth % 8 == 0 && k < depth) get8(x, row * depth + k, v);
        else for (int j = 0; j < 8; j++) v[j] = k + j < depth ? get(x, row * depth + k + j) : 0.0f;
        if (factors) for (int j = 0; j < 8; j++) if (k + j < depth) v[j] *= factors[k + j];
    };
    float largest = 0.0f, finite = 0.0f;
    for (int k = lane * 8; k < depth; k += 256) {
        float v[8];
        read(k, v);
        for (int j = 0; j < 8; j++) {
            const float size = v[j] < 0.0f ? -v[j] : v[j];
            if (size > largest) largest = size;
            // Zero, or NaN of NaN and infinity.
            finite += v[j] * 0.0f;
        }
    }
    largest = largest_of_warp(largest);
    finite = sum_of_warp(finite);
    if (lane == 0) scales[row] = largest / 127.0f + finite;
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    for (int k = lane * 8; k < padded; k += 256) {
        float v[8];
        read(k, v);
        unsigned words[2] = {};
        for (int j = 0; j < 8; j++) words[j / 4] |= ((unsigned)to_nearest(v[j] * inverse) & 0xff) << 8 * (j % 4);
        unsigned* to = (unsigned*)(codes + row * padded + k);
        to[0] = words[0];
        to[1] = words[1];
    }
}

// low = x down^T; x is [rows, depth] and down [rank, depth], depth divides by 8 and rank by 32. A block a
// (16 rows, 32 columns); its warps take every fourth 32 of the depth. 8 KiB of shared memory.
KERNEL(128, branch_down, const bf16* x, const bf16* down, int rows, int depth, int rank, bf16* low) {
    take_turn();
    SHARED(memory);
    float* room = (float*)memory;  // [4 warps][16][32]
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, row0 = blockIdx.x * 16, column0 = blockIdx.y * 32;
    float sums[4][4] = {};
    auto load = [&](const bf16* from, int row, int k, bool inside) {
        Four none = {};
        return inside && k < depth ? *(const Four*)(from + (long long)row * depth + k) : none;
    };
    for (int k0 = warp * 32; k0 < depth; k0 += 128) {
        // A sum over the depth may take it in any order: a lane has eight neighbours of both operands.
        const int k = k0 + lane % 4 * 8, top = row0 + lane / 4;
        const Four upper = load(x, top, k, top < rows), lower = load(x, top + 8, k, top + 8 < rows);
        const unsigned first[4] = {upper.u[0], lower.u[0], upper.u[1], lower.u[1]};
        const unsigned second[4] = {upper.u[2], lower.u[2], upper.u[3], lower.u[3]};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const Four right = load(down, column0 + n * 8 + lane / 4, k, true);
            multiply_add(sums[n], first, right.u[0], right.u[1]);
            multiply_add(sums[n], second, right.u[2], right.u[3]);
        }
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) room[(warp * 16 + lane / 4 + i / 2 * 8) * 32 + n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
    barrier();
    for (int i = thread; i < 16 * 32; i += 128) {
        float sum = 0.0f;
        for (int part = 0; part < 4; part++) sum += room[part * 512 + i];
        if (row0 + i / 32 < rows) low[(long long)(row0 + i / 32) * rank + column0 + i % 32] = to_bf16(sum);
    }
}

// x [rows, depth] and w [columns, depth] are codes with a scale a row; low [rows, rank] and up [columns, rank], or rank
// is 0. Depth divides by 64 and rank by 32. 66 KiB of shared memory.
KERNEL(256, low_bit_linear, const signed char* x, const float* x_scales, const signed char* w, const float* w_scales, const bf16* low,
       const bf16* up, int rows, int columns, int depth, int rank, Steps steps) {
    take_turn();
    low_bit_parts::product(x, x_scales, w, w_scales, low, up, rows, columns, depth, rank, steps);
}
