// Products of few rows, bound by reading weights: a warp a column, rows in registers.
#include "epilogue.cuh"

// y = activation(x w^T + bias); x is [rows, depth] of at most eight rows, w is [columns, depth].
KERNEL(256, few_rows_linear, Array x, Array w, const float* bias, Array y, int rows, int columns, int depth, int activation) {
    take_turn();
    const int column = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (column >= columns) return;
    float sums[8] = {};
    for (int k = lane * 8; k < depth; k += 256) {
        float weights[8];
        const int count = depth - k < 8 ? depth - k : 8;
        if (depth % 8 == 0) get8(w, (long long)column * depth + k, weights);
        else for (int j = 0; j < 8; j++) weights[j] = j < count ? get(w, (long long)column * depth + k + j) : 0.0f;
#pragma unroll
        for (int r = 0; r < 8; r++)
            if (r < rows)
                for (int j = 0; j < 8; j++) if (j < count) sums[r] += weights[j] * get(x, (long long)r * depth + k + j);
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        const float sum = sum_of_warp(sums[r]);
        if (lane == 0 && r < rows) put(y, (long long)r * columns + column, activate(activation, sum + (bias ? bias[column] : 0.0f)));
    }
}
