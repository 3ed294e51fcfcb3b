// Norms over the last dimension. A row's values are read once and stay in registers, eight neighbours a lane.
#include "epilogue.cuh"

namespace norm_parts {
enum { CHUNKS = 4, THREADS = 256 };

// A row of `lanes` threads (a power of two, at most a block), each with every so many chunks of eight columns: CHUNKS of
// them in registers where `held`, else read anew each time.
template <bool held> struct Row {
    const Array& x;
    long long row;
    int channels, lanes, lane;
    bool there;
    float values[held ? CHUNKS : 1][8];

    DEVICE Row(const Array& x, int rows, int channels, int lanes)
        : x(x), row(blockIdx.x * (long long)(THREADS / lanes) + threadIdx.x / lanes), channels(channels), lanes(lanes), lane(threadIdx.x % lanes) {
        there = row < rows;
        if constexpr (held) {
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) if (inside(i)) read(column(i), values[i]);
        }
    }
    DEVICE int column(int i) const { return (lane + i * lanes) * 8; }
    DEVICE bool inside(int i) const { return there && column(i) < channels; }
    DEVICE void read(int column, float (&v)[8]) const {
        if (channels % 8 == 0) get8(x, row * channels + column, v);
        else for (int j = 0; j < 8; j++) v[j] = column + j < channels ? get(x, row * channels + column + j) : 0.0f;
    }
    // Calls `work(values, count)` for every chunk, of which so many are columns.
    template <class Work> DEVICE void each(Work work) {
        if constexpr (held) {
#pragma unroll
            for (int i = 0; i < CHUNKS; i++) if (inside(i)) work(values[i], channels - column(i));
        } else {
            for (int i = 0; inside(i); i++) {
                read(column(i), values[0]);
                work(values[0], channels - column(i));
            }
        }
    }
    // The same with the column, as one small loop.
    template <class Work> DEVICE void finish_each(Work work) {
#pragma unroll 1
        for (int i = 0; inside(i); i++) {
            float v[8];
            if constexpr (held) {
#pragma unroll
                for (int j = 0; j < 8; j++) v[j] = i == 0 ? values[0][j] : i == 1 ? values[1][j] : i == 2 ? values[2][j] : values[3][j];
            } else {
                read(column(i), v);
            }
            work(column(i), v);
        }
    }
    // The sum over the row's lanes, in every one; each sum of a kernel has a room of its own.
    DEVICE float sum(float x, float* room) const {
        for (int mask = (lanes < 32 ? lanes : 32) / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
        if (lanes <= 32) return x;
        if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
        barrier();
        const int first = threadIdx.x / lanes * (lanes / 32);
        float all = 0.0f;
        for (int i = 0; i < lanes / 32; i++) all += room[first + i];
        return all;
    }
};
// Eight columns of a vector, of which `channels` are.
DEVICE void columns_of(const float* x, int column, int channels, float (&v)[8]) {
    if (channels % 8 == 0) {
        const Floats low = *(const Floats*)(x + column), high = *(const Floats*)(x + column + 4);
#pragma unroll
        for (int j = 0; j < 4; j++) { v[j] = low.v[j]; v[j + 4] = high.v[j]; }
    } else {
        for (int j = 0; j < 8; j++) v[j] = column + j < channels ? x[column + j] : 0.0f;
    }
}

template <bool held>
DEVICE void rms(const Array& x, const float* weight, const float* shift, int rows, int channels, int lanes, float eps, const Steps& steps) {
    SHARED(memory);
    Row<held> row(x, rows, channels, lanes);
    float sum = 0.0f;
    row.each([&](float (&v)[8], int) { for (int j = 0; j < 8; j++) sum += v[j] * v[j]; });
    const float factor = inverse_root(row.sum(sum, (float*)memory) / channels + eps);
    row.finish_each([&](int column, float (&v)[8]) {
        float weights[8], shifts[8] = {};
        columns_of(weight, column, channels, weights);
        if (shift) columns_of(shift, column, channels, shifts);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = v[j] * factor * weights[j] + shifts[j];
        finish(steps, v, row.row, column, channels);
    });
}

template <bool held>
DEVICE void modulate(const Array& x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, const Array& y) {
    SHARED(memory);
    float* rooms = (float*)memory;
    Row<held> row(x, rows, channels, lanes);
    float sum = 0.0f;
    row.each([&](float (&v)[8], int) { for (int j = 0; j < 8; j++) sum += v[j]; });
    const float mean = row.sum(sum, rooms) / channels;
    sum = 0.0f;
    row.each([&](float (&v)[8], int count) { for (int j = 0; j < 8; j++) if (j < count) sum += (v[j] - mean) * (v[j] - mean); });
    const float factor = inverse_root(row.sum(sum, rooms + THREADS / 32) / channels + eps);
    const long long at = row.row / tokens * channels;
    row.finish_each([&](int column, float (&v)[8]) {
        float scales[8], shifts[8];
        columns_of(scale + at, column, channels, scales);
        columns_of(shift + at, column, channels, shifts);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = (v[j] - mean) * factor * (1.0f + scales[j]) + shifts[j];
        const long long to = row.row * channels + column;
        if (channels % 8 == 0) put8(y, to, v);
        else for (int j = 0; j < 8; j++) if (column + j < channels) put(y, to + j, v[j]);
    });
}
}  // namespace norm_parts

// steps(x / sqrt(mean(x^2) + eps) weight + shift); shift may be null. `lanes` threads a row, a power of two up to 256;
// 32 lanes channels or fewer. 64 bytes of shared memory.
KERNEL(256, rms_norm, Array x, const float* weight, const float* shift, int rows, int channels, int lanes, float eps, Steps steps) {
    norm_parts::rms<true>(x, weight, shift, rows, channels, lanes, eps, steps);
}
// Of rows of any length.
KERNEL(256, rms_norm_long, Array x, const float* weight, const float* shift, int rows, int channels, int lanes, float eps, Steps steps) {
    norm_parts::rms<false>(x, weight, shift, rows, channels, lanes, eps, steps);
}

// (x - mean) / deviation (1 + scale) + shift; vectors are [rows / tokens, channels]. Lanes and shared memory as above.
KERNEL(256, layer_norm_modulate, Array x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, Array y) {
    norm_parts::modulate<true>(x, shift, scale, rows, channels, lanes, tokens, eps, y);
}
KERNEL(256, layer_norm_modulate_long, Array x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, Array y) {
    norm_parts::modulate<false>(x, shift, scale, rows, channels, lanes, tokens, eps, y);
}
