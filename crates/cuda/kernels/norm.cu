// Norms over the last dimension. A row's values are read once and stay in registers, eight neighbours a lane.
#include "epilogue.cuh"

namespace norm_parts {
enum { CHUNKS = 4, MOST = 3, THREADS = 256 };

// The sum over a row's lanes, in every one; each sum of a kernel has a room of its own.
DEVICE float sum_of_row(float x, int lanes, float* room) {
    for (int mask = (lanes < 32 ? lanes : 32) / 2; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    if (lanes <= 32) return x;
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    barrier();
    const int first = threadIdx.x / lanes * (lanes / 32);
    float all = 0.0f;
    for (int i = 0; i < lanes / 32; i++) all += room[first + i];
    return all;
}

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
    DEVICE float sum(float x, float* room) const { return sum_of_row(x, lanes, room); }
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

DEVICE void modulate(const Array& x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, const Array& y) {
    SHARED(memory);
    float* rooms = (float*)memory;
    Row<false> row(x, rows, channels, lanes);
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

// A row that eights divide, MOST chunks a lane at most: all that is needed is asked for before anything is summed.
struct Whole {
    long long row;
    int channels, lanes, lane;
    bool there;
    DEVICE Whole(int rows, int channels, int lanes)
        : row(blockIdx.x * (long long)(THREADS / lanes) + threadIdx.x / lanes), channels(channels), lanes(lanes), lane(threadIdx.x % lanes) { there = row < rows; }
    DEVICE int column(int i) const { return (lane + i * lanes) * 8; }
    DEVICE bool inside(int i) const { return there && column(i) < channels; }
    DEVICE void read(const Array& x, float (&v)[MOST][8]) const {
#pragma unroll
        for (int i = 0; i < MOST; i++) if (inside(i)) get8(x, row * channels + column(i), v[i]);
    }
    DEVICE void read(const float* x, float (&v)[MOST][8]) const {
#pragma unroll
        for (int i = 0; i < MOST; i++) if (inside(i)) columns_of(x, column(i), 8, v[i]);
    }
    template <class Work> DEVICE void each(Work work) const {
#pragma unroll
        for (int i = 0; i < MOST; i++) if (inside(i)) work(i);
    }
};
}  // namespace norm_parts

// steps(x / sqrt(mean(x^2) + eps) weight + shift); shift may be null. `lanes` threads a row, a power of two up to 256;
// 32 lanes channels or fewer. 64 bytes of shared memory.
KERNEL(256, rms_norm, Array x, const float* weight, const float* shift, int rows, int channels, int lanes, float eps, Steps steps) {
    take_turn();
    norm_parts::rms<true>(x, weight, shift, rows, channels, lanes, eps, steps);
}
// Of rows of any length.
KERNEL(256, rms_norm_long, Array x, const float* weight, const float* shift, int rows, int channels, int lanes, float eps, Steps steps) {
    take_turn();
    norm_parts::rms<false>(x, weight, shift, rows, channels, lanes, eps, steps);
}

// x / sqrt(mean(x^2) + eps) weight of rows that stay in registers: 8 divides the channels, three chunks of 8 a lane at
// most. Of two tensors of one shape and type, each with its weight, where blocks along y are two.
KERNEL(256, rms_norm_whole, Array x0, Array x1, const float* weight0, const float* weight1, Array y0, Array y1, int rows, int channels, int lanes, float eps) {
    take_turn();
    using namespace norm_parts;
    SHARED(memory);
    const bool second = blockIdx.y;
    const Whole row(rows, channels, lanes);
    const Array x = {second ? x1.at : x0.at, x0.wide, 0}, y = {second ? y1.at : y0.at, y0.wide, 0};
    float v[MOST][8], weights[MOST][8], sum = 0.0f;
    row.read(x, v);
    row.read(second ? weight1 : weight0, weights);
    row.each([&](int i) {
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[i][j] * v[i][j];
    });
    const float factor = inverse_root(sum_of_row(sum, lanes, (float*)memory) / channels + eps);
    row.each([&](int i) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] *= factor * weights[i][j];
        put8(y, row.row * channels + row.column(i), v[i]);
    });
}

// (x - mean) / deviation (1 + scale) + shift; vectors are [rows / tokens, channels]. Lanes and shared memory as above; of
// rows that stay in registers, as of `rms_norm_whole`. Sets the word, where there is one, if a row's mean is NaN or
// infinite.
KERNEL(256, layer_norm_modulate_whole, Array x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, Array y,
       unsigned* not_finite) {
    take_turn();
    using namespace norm_parts;
    SHARED(memory);
    float* rooms = (float*)memory;
    const Whole row(rows, channels, lanes);
    const long long at = row.there ? row.row / tokens * channels : 0;
    float v[MOST][8], scales[MOST][8], shifts[MOST][8], sum = 0.0f;
    row.read(x, v);
    row.read(scale + at, scales);
    row.read(shift + at, shifts);
    row.each([&](int i) {
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[i][j];
    });
    const float mean = sum_of_row(sum, lanes, rooms) / channels;
    if (not_finite && !is_finite(mean)) *not_finite = 1;
    sum = 0.0f;
    row.each([&](int i) {
#pragma unroll
        for (int j = 0; j < 8; j++) sum += (v[i][j] - mean) * (v[i][j] - mean);
    });
    const float factor = inverse_root(sum_of_row(sum, lanes, rooms + THREADS / 32) / channels + eps);
    row.each([&](int i) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[i][j] = (v[i][j] - mean) * factor * (1.0f + scales[i][j]) + shifts[i][j];
        put8(y, row.row * channels + row.column(i), v[i]);
    });
}
// Of rows of any length.
KERNEL(256, layer_norm_modulate_long, Array x, const float* shift, const float* scale, int rows, int channels, int lanes, int tokens, float eps, Array y) {
    take_turn();
    norm_parts::modulate(x, shift, scale, rows, channels, lanes, tokens, eps, y);
}
