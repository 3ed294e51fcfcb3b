// Matrix products and convolutions of f32 operands, for runs that are compared closely.
#include "loaders.cuh"

namespace precise_parts {
enum { ROWS = 64, COLUMNS = 64, DEPTH = 16, THREADS = 256, PITCH = DEPTH + 4, ROOM = COLUMNS + 4 };

// y = steps(left w^T), a tile of 64 x 64 a block; `w` is [columns, depth].
template <class Left>
DEVICE void product(const Left& left, const float* w, int rows, int columns, int depth, const Steps& steps) {
    SHARED(memory);
    float* a = (float*)memory;
    float* b = a + ROWS * PITCH;
    const int thread = threadIdx.x, row0 = blockIdx.y * ROWS, column0 = blockIdx.x * COLUMNS;
    const int r = thread / 4, c = thread % 4;
    const typename Left::Row mine = left.row(row0 + r);
    float sums[4][4] = {};
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        int k = k0 + c * 4;
        bool inside;
        const float* from = left.chunk(mine, k, inside);
        copy16(a + r * PITCH + c * 4, inside ? from : left.x, inside ? 16 : 0);
        inside = column0 + r < columns && k < depth;
        from = w + (long long)(column0 + r) * depth + k;
        copy16(b + r * PITCH + c * 4, inside ? from : w, inside ? 16 : 0);
        commit();
        wait<0>();
        barrier();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) { x[i] = a[(thread / 16 * 4 + i) * PITCH + k]; y[i] = b[(thread % 16 + 16 * i) * PITCH + k]; }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] += x[i] * y[j];
        }
        barrier();
    }
    float* room = (float*)memory;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) room[(thread / 16 * 4 + i) * ROOM + thread % 16 + 16 * j] = sums[i][j];
    barrier();
    const int column = column0 + thread % 8 * 8;
#pragma unroll 1
    for (int r = thread / 8; r < ROWS; r += THREADS / 8) {
        if (row0 + r >= rows || column >= columns) continue;
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = room[r * ROOM + thread % 8 * 8 + j];
        finish(steps, v, left.place(row0 + r), column, columns);
    }
}
}  // namespace precise_parts

// x is [rows, depth], w is [columns, depth]; depth divides by 4. 17 KiB of shared memory.
KERNEL(256, linear_f32, const float* x, const float* w, int rows, int columns, int depth, Steps steps) {
    take_turn();
    precise_parts::product(Matrix<float>{x, rows, depth}, w, rows, columns, depth, steps);
}
// w is [phases, columns, side, side, channels]; channels divide by 4.
KERNEL(256, conv_f32, const float* x, const float* w, Window window, int columns, Steps steps) {
    take_turn();
    Taps<float> taps(x, window, blockIdx.z);
    precise_parts::product(taps, w + (long long)blockIdx.z * columns * taps.depth(), taps.rows(), columns, taps.depth(), steps);
}
