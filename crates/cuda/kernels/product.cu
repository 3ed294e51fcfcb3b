// Matrix products and convolutions with bf16 operands and f32 sums, for any card since sm_80.
#include "loaders.cuh"

namespace product_parts {
enum { ROWS = 128, COLUMNS = 128, DEPTH = 32, STAGES = 4, THREADS = 256, PITCH = COLUMNS + 4 };

// Rows of 64 bytes, chunks exchanged so that eight rows of one chunk lie in all banks.
DEVICE int swizzled(int row, int chunk) { return row * DEPTH + (chunk ^ (row >> 1 & 3)) * 8; }

// y = steps(left w^T), a tile of 128 x 128 a block; `w` is [columns, depth].
template <class Left>
DEVICE void product(const Left& left, const bf16* w, int rows, int columns, int depth, const Steps& steps) {
    SHARED(memory);
    bf16* lefts = (bf16*)memory;
    bf16* rights = lefts + STAGES * ROWS * DEPTH;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
    typename Left::Row mine[2];
    for (int i = 0; i < 2; i++) mine[i] = left.row(row0 + (thread + i * THREADS) / 4);

    auto load = [&](int step) {
        bf16* a = lefts + step % STAGES * ROWS * DEPTH;
        bf16* b = rights + step % STAGES * COLUMNS * DEPTH;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = (thread + i * THREADS) / 4, c = thread % 4, k = step * DEPTH + c * 8;
            bool inside;
            const bf16* from = left.chunk(mine[i], k, inside);
            copy16(a + swizzled(r, c), inside ? from : left.x, inside ? 16 : 0);
            inside = column0 + r < columns && k < depth;
            from = w + (long long)(column0 + r) * depth + k;
            copy16(b + swizzled(r, c), inside ? from : w, inside ? 16 : 0);
        }
    };

    const int count = (depth + DEPTH - 1) / DEPTH;
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < count) load(step);
        commit();
    }
    float sums[4][4][4] = {};
    const int top = warp / 4 * 64, side = warp % 4 * 32;
    for (int step = 0; step < count; step++) {
        wait<STAGES - 2>();
        barrier();
        // Into the stage that all have left.
        if (step + STAGES - 1 < count) load(step + STAGES - 1);
        commit();
        const bf16* a = lefts + step % STAGES * ROWS * DEPTH;
        const bf16* b = rights + step % STAGES * COLUMNS * DEPTH;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned as[4][4], bs[2][4];
#pragma unroll
            for (int m = 0; m < 4; m++) load_matrices(as[m], a + swizzled(top + m * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int n = 0; n < 2; n++)
                load_matrices(bs[n], b + swizzled(side + n * 16 + lane % 8 + lane / 16 * 8, half * 2 + lane / 8 % 2));
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
        finish(steps, v, left.place(row0 + r), column, columns);
    }
}
}  // namespace product_parts

// x is [rows, depth], w is [columns, depth]; depth divides by 8. 66 KiB of shared memory.
KERNEL(256, linear_bf16, const bf16* x, const bf16* w, int rows, int columns, int depth, Steps steps) {
    take_turn();
    product_parts::product(Matrix<bf16>{x, rows, depth}, w, rows, columns, depth, steps);
}
// w is [phases, columns, side, side, channels]; channels divide by 8.
KERNEL(256, conv_bf16, const bf16* x, const bf16* w, Window window, int columns, Steps steps) {
    take_turn();
    Taps<bf16> taps(x, window, blockIdx.z);
    product_parts::product(taps, w + (long long)blockIdx.z * columns * taps.depth(), taps.rows(), columns, taps.depth(), steps);
}
